"""Validation that several groups of settings share: lists, networks, packages that are not installed."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator

MISSING_PACKAGES_HINT = "needs packages: `pip install --require-hashes -r requirements-{}.txt`."


def split_list(text: Any) -> Any:
    """The non-empty items of a comma-separated list, stripped. Other values than texts are returned as they are."""
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


CommaSeparated = Annotated[list[str], BeforeValidator(split_list)]


def check_networks(setting: str, networks: list[str]) -> Iterator[str]:
    """One sentence for each item that is not a network."""
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            yield f"{setting}: {network!r} is not an address or a network such as 10.0.0.0/24."
