"""Every command of `flask --app app`. A failure is a sentence and exit status 1, never a traceback."""
