"""`python -m tests.support.external_audits [NAME …]`: programs nobody here wrote judge the running system; each
prints its own verdict.

They have an environment of their own (`.venv-judges`, `tests/support/external_audits/node_modules`; `make judge` installs
both). A judge that is not on this machine is named and counted; the exit code is 1 when any of those that ran is not
content.
"""

import sys
import tempfile
from pathlib import Path

from tests.support.external_audits import proxies  # noqa: F401 - it adds its judge
from tests.support.external_audits.audits import AUDITS, AuditResult, AuditUnavailable
from tests.support.system import System


def main(names: list[str]) -> int:
    selected = names or list(AUDITS)
    results: dict[str, AuditResult | None] = {}
    with tempfile.TemporaryDirectory() as folder, System(Path(folder)) as system:
        for name in selected:
            print(f"\n=== {name}", flush=True)
            try:
                results[name] = AUDITS[name](system, Path(folder))
                print(f"--- {results[name].summary}", flush=True)
            except AuditUnavailable as error:
                results[name] = None
                print(f"--- not here: {error}", flush=True)
    print()
    for name, result in results.items():
        summary = "not here" if result is None else result.summary
        print(f"{name:<20} {'–' if result is None else 'ok' if result.has_passed else 'NOT MET':<8} {summary}")
    return 1 if any(verdict and not verdict.has_passed for verdict in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
