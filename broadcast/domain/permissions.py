"""Console permissions: one table from roles to permissions.

A role that is not in the table gives no access to the console; it only decides what its users receive. `@allow`,
`Actor` and the console's navigation all use this table.
"""

from collections.abc import Iterable
from enum import StrEnum


class Permission(StrEnum):
    SEE = "see"  # broadcasts, their totals, who is connected
    WRITE = "write"  # compose, send, edit, recall, remind
    FIGURES = "figures"  # who has received and read what, per user
    PEOPLE = "people"  # accounts, roles, sessions, tokens
    AUDIT = "audit"  # read the audit log
    OPERATE = "operate"  # close connections, dead letters


_ROLE_PERMISSIONS: dict[str, frozenset[Permission]] = {
    "viewer": frozenset({Permission.SEE}),
    "author": frozenset({Permission.SEE, Permission.WRITE, Permission.FIGURES}),
    "auditor": frozenset({Permission.SEE, Permission.FIGURES, Permission.AUDIT}),
    "admin": frozenset(Permission),
}
CONSOLE_ROLES = tuple(_ROLE_PERMISSIONS)


def get_role_permissions(roles: Iterable[str]) -> frozenset[Permission]:
    """The union of these roles' permissions."""
    return frozenset().union(*(_ROLE_PERMISSIONS.get(role, frozenset()) for role in roles))
