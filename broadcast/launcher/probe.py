"""`python -m broadcast.launcher.probe`: exit code 0 when /readyz answers 200. For the health check of a container."""

import os
import sys

from broadcast.launcher.__main__ import LOOPBACK_OF_WILDCARD, is_ready


def main() -> int:
    host = os.environ.get("HOST") or "127.0.0.1"
    return 0 if is_ready(LOOPBACK_OF_WILDCARD.get(host, host), int(os.environ.get("PORT") or 8000)) else 1


if __name__ == "__main__":
    sys.exit(main())
