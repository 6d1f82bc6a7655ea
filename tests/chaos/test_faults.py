"""Nothing lost, nothing twice, nobody let in, under the short set of faults; `make chaos` runs all of them at full length."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import access_faults, failover_faults, kafka_faults  # noqa: F401 - they add theirs to the table
from tests.chaos.environment import start_environment
from tests.chaos.faults import FAULT_REQUIREMENTS, FAULTS, SERVER_FAULTS, SQLITE_FAULTS, STANDALONE_FAULTS
from tests.chaos.scenario import ChaosEnvironment, Scenario
from tests.support import measurements as figures
from tests.support.databases import DATABASE_URL

pytestmark = [pytest.mark.service, pytest.mark.chaos, pytest.mark.timeout(300)]

_SCALE = 0.1  # of the table's length


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosEnvironment]:
    try:
        with start_environment(tmp_path_factory.mktemp("chaos"), user_count=6, seed=1) as place:
            yield place
    except LookupError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("fault", SERVER_FAULTS if DATABASE_URL else SQLITE_FAULTS)
def test_every_invariant_holds(place: ChaosEnvironment, fault: str, tmp_path: Path):
    expect_all_well(place, fault, tmp_path)


@pytest.mark.skipif(not DATABASE_URL, reason="these bring servers of their own; once is enough, with the other servers")
@pytest.mark.parametrize("fault", STANDALONE_FAULTS)
def test_every_invariant_holds_in_a_place_of_its_own(fault: str, tmp_path: Path):
    (tmp_path / "place").mkdir()
    with start_environment(tmp_path / "place", user_count=6, seed=1, requirement=FAULT_REQUIREMENTS[fault]) as place:
        expect_all_well(place, fault, tmp_path)


def expect_all_well(place: ChaosEnvironment, fault: str, folder: Path) -> None:
    seed = random.randrange(10_000)
    name, act = FAULTS[fault]
    print(f"again: python -m tests.chaos.run {fault} --seed {seed} --scale {_SCALE} --people 6")
    world = Scenario(
        place, fault=fault, seed=seed, streams_per_user=2, actions_per_second=20, path=folder / "history.jsonl"
    )
    verdict = world.run(lambda world: act(world, _SCALE))
    assert [str(violation) for violation in verdict.violations if violation.rule != "I10"] == []
    assert verdict.convergence_seconds is not None, "some page never came to show what a reload shows"
    measured = "".join(f", {figure} {value:g}" for figure, value in verdict.measurements.items())
    figures.measurements.append(
        f"{fault} {name}: {verdict.frame_count} frames, converged after {verdict.convergence_seconds:.1f} s{measured}"
    )
