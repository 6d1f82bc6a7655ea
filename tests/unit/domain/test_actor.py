"""Actors."""

import pytest

from broadcast.base.errors import Forbidden
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.audience import Viewer
from broadcast.domain.permissions import Permission


def test_role_name_alone_gives_no_right():
    """A token without the scope `admin` acts for an administrator and still may not administer."""
    with pytest.raises(Forbidden):
        Actor(1, "Alice", frozenset({"admin"})).require(Permission.WRITE)


def test_administrator_and_system_may():
    Actor(1, "Alice", may_administer=True).require(Permission.WRITE)
    SYSTEM.require(Permission.WRITE)


def test_viewer_has_the_roles_of_the_actor():
    assert Actor(2, "Bob", frozenset({"ops"})).viewer == Viewer(2, frozenset({"ops"}))
