"""Environment variables that look like settings but have no effect: misspelt, or of an earlier version."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

RENAMED = {  # in 0.2.0; the old names are refused at start for one version
    "FORWARDED_HOPS": "TRUSTED_PROXY_HOPS",
    "FIGURES_PER_PERSON": "STATS_PER_RECIPIENT",
    "DATABASE_BUSY_SECONDS": "DATABASE_LOCK_TIMEOUT_SECONDS",
    "DRAFTS_PER_PERSON": "DRAFTS_PER_USER",
    "PLAN_GRACE_MINUTES": "SCHEDULE_GRACE_MINUTES",
    "EVENT_RULES_OTHERS": "EVENT_RULES_DEFAULT",
    "OIDC_CREATE_PEOPLE": "OIDC_CREATE_USERS",
    "OIDC_LINK_PEOPLE": "OIDC_LINK_USERS",
    "PROXY_CREATE_PEOPLE": "PROXY_CREATE_USERS",
}
_MIN_SIMILARITY = 0.84  # HEARTBEAT_SECOND and HEARTBEAT_SECONDS score 0.97, HOSTNAME and HOST 0.67
_MIN_NAME_CHARACTERS = 6  # PORTS or HOSTS may belong to another program


def list_misspelling_warnings(names: Iterable[str], known: Collection[str]) -> list[str]:
    """A sentence for each of `names` that is nearly, but not exactly, one of `known`. Both in upper case."""
    return [
        f"{name} is not a setting and does nothing. Did you mean {nearest}?"
        for name in names
        if name not in known and len(name) >= _MIN_NAME_CHARACTERS
        for nearest in get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY)
    ]
