"""Permissions: the table, and actors that obey it."""

import pytest

from broadcast.base.errors import Forbidden
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.permissions import CONSOLE_ROLES, Permission, get_role_permissions


def test_admin_has_every_permission_and_is_the_only_one():
    assert get_role_permissions(["admin"]) == set(Permission)
    assert [role for role in CONSOLE_ROLES if get_role_permissions([role]) == set(Permission)] == ["admin"]


def test_roles_add_up():
    assert get_role_permissions(["author", "auditor"]) == set(Permission) - {Permission.PEOPLE, Permission.OPERATE}


@pytest.mark.parametrize("roles", [[], ["ops"], ["ADMIN"], ["admin "], [""]])
def test_any_other_role_has_no_part_in_the_console(roles):
    assert get_role_permissions(roles) == set()


def test_whoever_is_in_the_console_may_look():
    assert all(Permission.SEE in get_role_permissions([role]) for role in CONSOLE_ROLES)


def test_actor_without_the_permission_is_refused():
    writer = Actor(1, "Bob", permissions=frozenset({Permission.WRITE}))
    writer.require(Permission.WRITE)
    for permission in set(Permission) - {Permission.WRITE}:
        with pytest.raises(Forbidden):
            writer.require(permission)
        SYSTEM.require(permission)
