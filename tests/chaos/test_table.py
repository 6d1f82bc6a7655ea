"""Every fault of the table has a world of its own or a test that shows it, and `make chaos` runs them all."""

import pytest

from tests.chaos import elsewhere, run
from tests.chaos.elsewhere import ELSEWHERE, Elsewhere
from tests.chaos.faults import FAULTS, ON_SERVERS, ON_SQLITE
from tests.judges.judges import JUDGES
from tests.system import TOP


def test_every_fault_from_f01_to_f27_is_run():
    assert {id[:3] for id in [*FAULTS, *ELSEWHERE]} == {f"F{n:02}" for n in range(1, 28)}
    assert not FAULTS.keys() & ELSEWHERE.keys()
    assert {*ON_SERVERS, *ON_SQLITE} <= FAULTS.keys()


@pytest.mark.parametrize("fault", ELSEWHERE)
def test_the_tests_it_names_exist(fault: str):
    for name in ELSEWHERE[fault].where:
        if name.startswith("judge: "):
            assert name.removeprefix("judge: ") in JUDGES
            continue
        file, _, test = name.partition("::")
        assert not test or f"def {test}(" in (TOP / file).read_text(), name
        assert (TOP / file).exists(), name


@pytest.mark.parametrize(("is_well", "code"), [(True, 0), (False, 1)])
def test_a_row_says_what_its_tests_said_and_failure_is_the_exit_code(monkeypatch, capsys, is_well: bool, code: int):
    monkeypatch.setattr(run, "run_elsewhere", lambda fault: (is_well, "3 passed (1 s)"))
    monkeypatch.setattr("sys.argv", ["chaos", "F26", "F22"])
    assert run.main() == code
    rows = capsys.readouterr().out.splitlines()
    assert [row[:3] for row in rows if row.startswith("F")] == ["F26", "F22"]
    assert all(row.endswith("3 passed (1 s)") for row in rows if row.startswith("F"))


def test_verdict_is_the_last_line_of_the_tests(monkeypatch):
    monkeypatch.setitem(ELSEWHERE, "F22", Elsewhere("something quick", ("tests/domain/test_words.py",)))
    is_well, said = elsewhere.run("F22")
    assert is_well, said
    assert "passed (" in said
