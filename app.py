"""For the command line: `flask --app app …`. Named in full, because bare `flask` would take `wsgi.py` first."""

import sys

from broadcast.config.settings import SettingsError

try:
    from wsgi import app
except SettingsError as problem:  # a sentence for who typed the command, no traceback
    sys.exit(str(problem))

__all__ = ["app"]
