"""`python -m tests.support.external_audits [NAME …]`: third-party programs audit the running system; each prints a
result.

They have their own environments (`.venv-judges`, `tests/support/external_audits/node_modules`), which `make judge`
installs. A program that is not installed is named and counted. Exit code 1 if any audit that ran fails.
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
