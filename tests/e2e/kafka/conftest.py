"""Fixtures: brokers, and systems that read from them."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.kafka.brokers import BOOTSTRAP_SERVERS, Brokers
from tests.support.process_fixtures import own_system, streams  # noqa: F401 - fixtures
from tests.support.system import System


@pytest.fixture(scope="session")
def brokers() -> Iterator[Brokers]:
    """Shared brokers; each test has its own topics and groups."""
    started_brokers = Brokers()
    yield started_brokers
    started_brokers.close()


@pytest.fixture
def mock() -> Iterator[Brokers]:
    """A mock cluster for one test, which may stop and start it."""
    if BOOTSTRAP_SERVERS:
        pytest.skip("takes brokers down, which only the mock cluster allows")
    started_brokers = Brokers(None)
    yield started_brokers
    started_brokers.close()


@pytest.fixture
def reading(own_system) -> Callable[..., System]:  # noqa: F811
    """Start a system that reads these topics: `reading(brokers, topic, KAFKA_BRIDGE="every-worker")`."""

    def start(brokers: Brokers, *topics: str, **settings: str) -> System:
        names = {"KAFKA_BOOTSTRAP_SERVERS": brokers.address, "KAFKA_TOPICS": ",".join(topics)}
        return own_system(**names | {"KAFKA_GROUP_ID": f"group-of-{topics[0]}"} | settings)

    return start
