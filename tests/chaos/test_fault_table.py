"""Every fault of the table has a world of its own or a test that shows it, and `make chaos` runs them all."""

from contextlib import nullcontext

import pytest

from tests.chaos import external_faults, run
from tests.chaos.checker import Violation
from tests.chaos.external_faults import EXTERNAL_FAULTS, ExternalFault
from tests.chaos.faults import FAULT_REQUIREMENTS, FAULTS, SERVER_FAULTS, SQLITE_FAULTS, STANDALONE_FAULTS
from tests.chaos.scenario import Verdict
from tests.support.external_audits import proxies  # noqa: F401 - it adds its judge
from tests.support.external_audits.audits import AUDITS
from tests.support.system import PROJECT_ROOT


def test_every_fault_from_f01_to_f33_is_run():
    assert {id[:3] for id in [*FAULTS, *EXTERNAL_FAULTS]} == {f"F{n:02}" for n in range(1, 34)}
    assert not FAULTS.keys() & EXTERNAL_FAULTS.keys()
    assert {*SERVER_FAULTS, *SQLITE_FAULTS, *STANDALONE_FAULTS} <= FAULTS.keys()
    assert {*STANDALONE_FAULTS} <= {fault for fault, needs in FAULT_REQUIREMENTS.items() if needs}


@pytest.mark.parametrize("fault", EXTERNAL_FAULTS)
def test_the_tests_it_names_exist(fault: str):
    for name in EXTERNAL_FAULTS[fault].test_paths:
        if name.startswith("judge: "):
            assert name.removeprefix("judge: ") in AUDITS
            continue
        file, _, test = name.partition("::")
        assert not test or f"def {test}(" in (PROJECT_ROOT / file).read_text(), name
        assert (PROJECT_ROOT / file).exists(), name


@pytest.mark.parametrize(("is_well", "code"), [(True, 0), (False, 1)])
def test_a_row_says_what_its_tests_said_and_failure_is_the_exit_code(monkeypatch, capsys, is_well: bool, code: int):
    monkeypatch.setattr(run, "run_elsewhere", lambda fault: (is_well, "3 passed (1 s)"))
    monkeypatch.setattr("sys.argv", ["chaos", "F26", "F22"])
    assert run.main() == code
    rows = capsys.readouterr().out.splitlines()
    assert [row[:3] for row in rows if row.startswith("F")] == ["F26", "F22"]
    assert all(row.endswith("3 passed (1 s)") for row in rows if row.startswith("F"))


def test_verdict_is_the_last_line_of_the_tests(monkeypatch):
    monkeypatch.setitem(
        EXTERNAL_FAULTS, "F22", ExternalFault("something quick", ("tests/unit/domain/test_search_tokens.py",))
    )
    is_well, said = external_faults.run_tests("F22")
    assert is_well, said
    assert "passed (" in said


def test_runs_are_repeated_with_the_seeds_that_follow_and_added_up(monkeypatch, capsys, tmp_path):
    def run_one(place, fault, seed, options):
        violations = [Violation("I1", "lost"), Violation("I3", "leaked")] if seed == 8 else []
        return Verdict(
            fault, seed, frame_count=100, convergence_seconds=None if seed == 9 else 1.5, violations=violations
        )

    monkeypatch.setattr(run, "start_environment", lambda folder, **options: nullcontext())
    monkeypatch.setattr(run, "run_scenario", run_one)
    monkeypatch.setattr("sys.argv", ["chaos", "minute", "F01", "--seed", "7", "--times", "3"])
    assert run.main() == 1
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if row.startswith(("minute", "F01", "6 runs"))]
    assert [row[:2] for row in rows[:-1]] == [[fault, seed] for seed in "789" for fault in ("minute", "F01")]
    assert rows[-1] == ["6", "runs", "600", "2", "0", "2", "0", "p99", "inf"]
