"""Names in the environment that look like settings and are none: a setting that is misspelt does nothing, in silence."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

_MIN_SIMILARITY = 0.84  # HEARTBEAT_SECOND and HEARTBEAT_SECONDS are 0.97 alike, HOSTNAME and HOST 0.67
_MIN_NAME_CHARACTERS = 6  # PORTS or HOSTS may be anybody's


def find_misspelt(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return the names that are no setting but nearly one, each with the nearest setting. Both in upper case."""
    nearest_settings = {}
    for name in names:
        if name in known or len(name) < _MIN_NAME_CHARACTERS:
            continue
        if nearest := get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY):
            nearest_settings[name] = nearest[0]
    return nearest_settings
