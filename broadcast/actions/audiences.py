"""Resolve role names and usernames to audiences."""

from collections.abc import Collection, Iterable

from broadcast.base.errors import Invalid
from broadcast.domain import audience
from broadcast.domain.message import Target, TargetType
from broadcast.store import users

_MAX_LISTED_NAMES = 5  # unknown names listed in one error message
MAX_SNAPSHOT_RECIPIENTS = 50_000  # users frozen by name, one row each; a larger audience stays dynamic


def resolve_audience(target: Target) -> audience.Audience:
    """Resolve names to an audience. Raises Invalid naming unknown roles and users; it never falls back to everyone."""
    problems: dict[str, str] = {}
    base_audience = _resolve_base(target, problems)
    _check_roles(target.except_roles, "exceptRoles", problems)
    excluded_ids = resolve_users(target.except_people, "exceptIds", problems)
    if problems:
        raise Invalid(problems)
    return audience.exclude(base_audience, target.except_roles, excluded_ids)


def _resolve_base(target: Target, problems: dict[str, str]) -> audience.BaseAudience | None:
    match target.type:
        case TargetType.ALL:
            return audience.EveryoneAudience()
        case TargetType.ROLE:
            names = frozenset(map(str, target.names))
            _check_roles(names, "targetIds", problems)
            return audience.RoleAudience(names, target.match_all)
    ids = resolve_users(target.names, "targetIds", problems)
    return None if problems else audience.UserAudience(frozenset(ids))


def _check_roles(names: Iterable[str], field: str, problems: dict[str, str]) -> None:
    if missing_names := users.find_missing_roles(names):
        problems[field] = f"There is no role {_join_names(set(map(audience.display_role_name, missing_names)))}."


def resolve_users(names: Iterable[int | str], field: str, problems: dict[str, str]) -> Collection[int]:
    """The ids of enabled users. Unknown names become a problem of `field`."""
    ids_by_name = users.resolve_ids(names)
    if missing_names := {str(name)[:64] for name in names if name not in ids_by_name}:
        problems[field] = f"There is no user called {_join_names(missing_names)}, or the account is disabled."
    return ids_by_name.values()


def _join_names(names: set[str]) -> str:
    listed = ", ".join(sorted(names)[:_MAX_LISTED_NAMES])
    return listed + (f" and {len(names) - _MAX_LISTED_NAMES} more" if len(names) > _MAX_LISTED_NAMES else "")
