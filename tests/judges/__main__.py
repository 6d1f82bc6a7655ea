"""`python -m tests.judges [NAME …]`: programs nobody here wrote judge the running system; each prints its own verdict.

They have an environment of their own (`.venv-judges`, `tests/judges/node_modules`; `make judge` installs both). A judge that is
not on this machine is named and counted; the exit code is 1 when any of those that ran is not content.
"""

import sys
import tempfile
from pathlib import Path

from tests.judges.judges import JUDGES, NotHere, Verdict
from tests.system import System


def main(names: list[str]) -> int:
    chosen = names or list(JUDGES)
    verdicts: dict[str, Verdict | None] = {}
    with tempfile.TemporaryDirectory() as folder, System(Path(folder)) as system:
        for name in chosen:
            print(f"\n=== {name}", flush=True)
            try:
                verdicts[name] = JUDGES[name](system, Path(folder))
                print(f"--- {verdicts[name].sentence}", flush=True)
            except NotHere as missing:
                verdicts[name] = None
                print(f"--- not here: {missing}", flush=True)
    print()
    for name, verdict in verdicts.items():
        said = "not here" if verdict is None else verdict.sentence
        print(f"{name:<20} {'–' if verdict is None else 'ok' if verdict.is_content else 'NOT MET':<8} {said}")
    return 1 if any(verdict and not verdict.is_content for verdict in verdicts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
