"""What the tests of real processes ask for."""

import pytest

from tests.processes import own_system, streams  # noqa: F401 - fixtures
from tests.system import System
from tests.visitor import HttpSession


@pytest.fixture
def alice(system: System):
    """A program that publishes on the shared system."""
    session = HttpSession(system, token=system.get_token("alice", "admin"))
    yield session
    session.close()
