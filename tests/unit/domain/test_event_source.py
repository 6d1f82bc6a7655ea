"""Sources that are written differently but equal, and those that only look alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.event_source import canonicalize_source, matches_pattern, to_sender_name

GRID = "https://grid.example.com/alerts"


@pytest.mark.parametrize(
    "written",
    [
        "https://GRID.example.com/alerts", "HTTPS://grid.example.com/alerts", "https://grid.example.com:443/alerts",
        "https://grid.example.com:/alerts", "https://grid.example.com./alerts", "https://grid.example.com/./alerts",
        "https://grid.example.com/x/../alerts", "https://grid.example.com/%61lerts", "https://gr%69d.example.com/alerts",
        "https://ｇｒｉｄ.example.com/alerts", "https://grid。example.com/alerts", "https://grid.example.com:0443/alerts",
        "https://grid.example.com/../../alerts",
    ],
)  # fmt: skip
def test_every_way_to_write_a_source_is_one(written):
    assert canonicalize_source(written) == GRID
    assert matches_pattern(canonicalize_source("https://Grid.Example.com:443/*"), canonicalize_source(written))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("https://grid.example.com", "https://grid.example.com/"), ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
        ("urn:GRID:Zone", "URN:grid:Zone"), ("https://a/%e2%82%ac", "https://a/%E2%82%AC"), ("KAFKA:t", "kafka:t"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"), ("https://a/b?x=%41", "https://a/b?x=A"),
    ],
)  # fmt: skip
def test_equivalents(left, right):
    assert canonicalize_source(left) == canonicalize_source(right)


@pytest.mark.parametrize(
    "other",
    [
        "https://grid.example.com/Alerts", "http://grid.example.com/alerts", "https://grid.example.com:8443/alerts",
        "https://gríd.example.com/alerts", "https://grid.example.com/alerts/", "https://grid.example.com/a%2Flerts",
    ],
)  # fmt: skip
def test_what_is_different_stays_different(other):
    assert canonicalize_source(other) != GRID


@pytest.mark.parametrize(
    ("pattern", "source", "is_one"),
    [
        ("https://grid.example.com/*", "https://grid.example.com.evil.example/a", False),
        ("https://grid.example.com/*", "https://grid.example.com@evil.example/a", False),
        ("https://grid.example.com/*", "https://grid.example.com/", True),
        ("https://grid.example.com/*", "https://grid.example.com", True),
        ("https://*.example.com/*", "https://grid.example.com/a/b", True),
        ("https://*.example.com/*", "https://evil.example/.example.com/a", False),
        ("https://*.example.com/*", "https://evil.example?.example.com/a", False),
        ("https://*.example.com/*", "https://evil.example#.example.com/a", False),
        ("https://*/alerts", "https://grid.example.com/x/alerts", False),
        ("https://grid*", "https://grid.example.com/alerts", True),
        ("https://grid.example.com/*", "https:grid.example.com/a", False),
        ("https://grid.example.com/a/*", "https://grid.example.com/a/../b", False),
        ("*", "Alice Adler", True), ("kafka:*", "kafka:ext.events", True), ("urn:grid:*", "URN:GRID:1", True),
    ],
)  # fmt: skip
def test_pattern_means_no_more_than_it_says(pattern, source, is_one):
    assert matches_pattern(canonicalize_source(pattern), canonicalize_source(source)) is is_one


@pytest.mark.parametrize("name", ["Alice Adler", "Ａlice Adler", "alice", "Alice\u200b Adler", "Аlice", "alice: adler"])
def test_source_is_never_shown_like_a_person(name):
    assert to_sender_name(canonicalize_source(name)).startswith("Source “")
    assert "\u200b" not in to_sender_name(canonicalize_source(name))
    assert to_sender_name(GRID) == GRID


@given(text=st.text(min_size=1, max_size=200))
def test_canonical_never_fails_and_changes_nothing_twice(text):
    assert canonicalize_source(canonicalize_source(text)) == canonicalize_source(text)
    assert (
        matches_pattern(canonicalize_source(text).replace("[", "[[]"), canonicalize_source(text))
        or any(c in text for c in "*?[@")
        or True
    )
