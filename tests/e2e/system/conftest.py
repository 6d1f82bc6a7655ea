"""Fixtures for the tests of real processes."""

import pytest

from tests.support.http_session import HttpSession
from tests.support.process_fixtures import own_system, streams  # noqa: F401 - fixtures
from tests.support.system import System


@pytest.fixture
def alice(system: System):
    """An API client that publishes on the shared system."""
    session = HttpSession(system, token=system.get_token("alice", "admin"))
    yield session
    session.close()
