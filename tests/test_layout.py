"""The shape of the house: who may import whom, what files may be called, and what may not be left lying about."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
CODE = TOP / "broadcast"

_LEAVES = {"errors", "turn"}
_STORE = {"config", "domain", "store", "settings"} | _LEAVES
_ACTIONS = {"domain", "store", "bus", "actions", "content"} | _LEAVES
_LOOPS = {"domain", "store", "hub", "bus", "actions"} | _LEAVES

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "turn": set(),
    "sign_in_settings": set(),
    "config": {"config"},
    "private_files": set(),
    "secret_keys": set(),
    "settings": {"config", "secret_keys", "sign_in_settings"},
    "content": {"content", "domain"} | _LEAVES,
    "launcher": {"config", "launcher", "private_files", "settings"},
    "domain": {"domain"} | _LEAVES,
    "hub": {"hub", "domain", "turn"},
    "redis_url": set(),
    "untrusted": set(),
    "bus": {"bus", "redis_url", "untrusted"},
    "store": _STORE,
    "actions": _ACTIONS,
    "metrics": {"hub"},
    "replay": {"domain", "hub", "store"},
    "tail": {"domain", "hub", "store", "metrics"},
    "deliveries": {"domain", "store", "turn"},
    "follow": {"domain", "hub", "store"},
    "last_use": {"store"},
    "head_memory": {"domain", "redis_url"},
    "keepalive": set(),
    "worker": {"worker"},
    "commands": {"store"} | _LEAVES,
    "upkeep": {"actions", "commands", "domain", "ingest", "redis_url", "settings", "store", "upkeep"} | _LEAVES,
    "gauges": {"bus", "hub", "metrics", "store", "untrusted"},
    "counted": set(),
    "presence": {"domain", "hub", "redis_url", "turn", "untrusted"},
    "scheduler": _LOOPS,
    "tracing": {"domain", "settings"},
    "ingest": {"domain", "store", "actions", "ingest", "settings", "metrics"} | _LEAVES,
    "demo": {"domain", "actions", "store"},
    "runtime": _LOOPS
    | {"ingest", "scheduler", "tail", "follow", "deliveries", "gauges", "keepalive", "metrics", "presence", "upkeep", "worker"}
    | {"head_memory"},
    "web": _LOOPS
    | {"upkeep", "web", "ingest", "settings", "content", "demo"}
    | {"metrics", "presence", "redis_url", "replay", "counted", "untrusted"},
    "cli": {"domain", "store", "actions", "commands", "demo"} | _LEAVES,
    "factory": {"bus", "cli", "counted", "deliveries", "domain", "hub", "ingest"}
    | {"last_use", "metrics", "presence", "redis_url", "runtime", "settings", "store", "tracing", "upkeep", "web"},
}  # fmt: skip
# Packages from outside that only these rooms may know.
ONLY_IN: dict[str, set[str]] = {
    "flask": {"web", "store", "cli", "commands", "factory", "upkeep", "actions", "runtime", "tail", "follow", "ingest"}
    | {"tracing"},
    "flask_limiter": {"web"},
    "flask_wtf": {"web"},
    "flask_migrate": {"store"},
    "flask_sqlalchemy": {"store"},
    "werkzeug": {"web"},
    "itsdangerous": {"web"},
    "jinja2": {"web", "content", "ingest"},
    "redis": {"redis_url"},
    "limits": {"web"},
    "argon2": {"actions"},
    "kafka": {"ingest"},
    "nh3": {"content"},
    "markdown_it": {"content"},
    "pydantic": {"settings", "sign_in_settings"},
    "pydantic_settings": {"settings", "sign_in_settings"},
    "prometheus_client": {"metrics"},
    "click": {"cli", "commands", "upkeep"},
    "alembic": {"store"},
    "authlib": {"web"},
    "joserfc": {"web"},
    "requests": {"web"},
    "opentelemetry": {"tracing"},
}
STANDARD_LIBRARY_ONLY = {
    "config": set(),
    "domain": set(),
    "errors": set(),
    "hub": {"gevent"},
    "turn": {"gevent"},
    "worker": set(),
}


def room_of(path: Path) -> str:
    return path.relative_to(CODE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in CODE.rglob("*.py") if path != CODE / "__init__.py")
NAMES = [str(path.relative_to(TOP)) for path in MODULES]


def imports_of(path: Path) -> Iterator[str]:
    """Every imported module, dotted; `from a import b` gives `a.b`, so that a room imported as a name is seen too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def outside(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)} - {"broadcast"} - set(sys.stdlib_module_names)


def test_every_room_is_in_the_table():
    assert {room_of(path) for path in MODULES} == set(MAY_IMPORT)


def test_table_has_no_circle():
    done: set[str] = set()
    while left := MAY_IMPORT.keys() - done:
        free = {room for room in left if MAY_IMPORT[room] - {room} <= done}
        assert free, f"these rooms may import each other: {sorted(left)}"
        done |= free


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_rooms_import_only_what_the_table_allows(path):
    rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("broadcast.")}
    assert rooms <= MAY_IMPORT[room_of(path)]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_packages_stay_in_their_rooms(path):
    room = room_of(path)
    if room in STANDARD_LIBRARY_ONLY:
        assert outside(path) <= STANDARD_LIBRARY_ONLY[room]
    for package in outside(path) & ONLY_IN.keys():
        assert room in ONLY_IN[package], f"{package} in {room}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_sqlalchemy_is_known_to_the_store_alone(path):
    """Others may catch its errors; actions may name the session that they were handed."""
    found = {name for name in imports_of(path) if name.partition(".")[0] == "sqlalchemy"}
    if room_of(path) == "store":
        return
    allowed = {"sqlalchemy.orm.Session"} if room_of(path) == "actions" else set()
    assert {name for name in found if not name.startswith("sqlalchemy.exc.")} <= allowed


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_module_says_what_lives_in_it(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def our_files() -> list[Path]:
    tops = [CODE, TOP / "tests", TOP / "migrations", *TOP.glob("*.py")]
    return [path for top in tops for path in ([top] if top.is_file() else top.rglob("*.py"))]


def test_no_drawer_for_everything():
    drawer = re.compile(r"(^|_)(utils?|helpers?|common|misc|shared|manager)(_|$)")
    assert [path for path in our_files() if drawer.search(path.stem)] == []


def test_what_is_left_to_do_has_its_issue():
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
    left = [(path.name, line) for path in our_files() for line in path.read_text().splitlines() if mark.search(line)]
    assert [(name, line) for name, line in left if name != Path(__file__).name] == []


def test_test_files_stay_short():
    for path in (TOP / "tests").rglob("*.py"):
        assert len(path.read_text().splitlines()) < 400, path
