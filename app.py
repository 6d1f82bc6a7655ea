"""For the command line: `flask --app app …`. The option is needed because bare `flask` would prefer `wsgi.py`."""

import sys

from broadcast.config.settings import SettingsError

try:
    from wsgi import app
except SettingsError as problem:  # a sentence for the caller, no traceback
    sys.exit(str(problem))

__all__ = ["app"]
