"""Nothing lost, nothing twice, nobody let in, under the short set of faults; `make chaos` runs all of them at full length."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import figures
from tests.chaos import fail_over, kafka_faults  # noqa: F401 - they add theirs to the table
from tests.chaos.faults import FAULTS, NEEDS, OF_THEIR_OWN, ON_SERVERS, ON_SQLITE
from tests.chaos.place import a_place
from tests.chaos.world import Place, World
from tests.databases import DATABASE_URL

pytestmark = [pytest.mark.service, pytest.mark.chaos, pytest.mark.timeout(240)]

_SCALE = 0.1  # of the table's length


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    try:
        with a_place(tmp_path_factory.mktemp("chaos"), people=6, seed=1) as place:
            yield place
    except LookupError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("fault", ON_SERVERS if DATABASE_URL else ON_SQLITE)
def test_every_invariant_holds(place: Place, fault: str, tmp_path: Path):
    expect_all_well(place, fault, tmp_path)


@pytest.mark.skipif(not DATABASE_URL, reason="these bring servers of their own; once is enough, with the other servers")
@pytest.mark.parametrize("fault", OF_THEIR_OWN)
def test_every_invariant_holds_in_a_place_of_its_own(fault: str, tmp_path: Path):
    (tmp_path / "place").mkdir()
    with a_place(tmp_path / "place", people=6, seed=1, needs=NEEDS[fault]) as place:
        expect_all_well(place, fault, tmp_path)


def expect_all_well(place: Place, fault: str, folder: Path) -> None:
    seed = random.randrange(10_000)
    name, act = FAULTS[fault]
    print(f"again: python -m tests.chaos.run {fault} --seed {seed} --scale {_SCALE} --people 6")
    world = World(place, fault=fault, seed=seed, streams=2, rate=20, path=folder / "history.jsonl")
    verdict = world.run(lambda world: act(world, _SCALE))
    assert [str(violation) for violation in verdict.violations if violation.rule != "I10"] == []
    assert verdict.seconds is not None, "some page never came to show what a reload shows"
    measured = "".join(f", {figure} {value:g}" for figure, value in verdict.figures.items())
    figures.noted.append(f"{fault} {name}: {verdict.frames} frames, converged after {verdict.seconds:.1f} s{measured}")
