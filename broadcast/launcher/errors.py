"""Why a launch ended. The message is one sentence, printed as it is: nobody should need a traceback to free a port.

LaunchFailed       nothing serves (any more); exit code 1
StopRequested      Ctrl-C, SIGTERM or a closed terminal; exit code 0
"""


class LaunchFailed(Exception):
    """What is wrong, and what to do about it."""


class StopRequested(Exception):
    """Someone asked the launcher to stop. Raised only where the launcher waits, never in the middle of a step."""
