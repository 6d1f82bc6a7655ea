"""The code layout: which package may import which, file names, and no leftovers."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
CODE = TOP / "broadcast"

# Each package and what it may import besides itself. The order is that of the layers: nothing imports what stands below it.
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "config": {"base"},
    "domain": {"base"},
    "launcher": {"base", "config"},
    "bus": {"base"},
    "content": {"base", "domain"},
    "observability": {"base", "config", "domain"},
    "store": {"base", "config", "domain"},
    "streams": {"base", "domain", "store", "bus", "observability"},
    "actions": {"base", "config", "domain", "store", "bus", "content"},
    "ingest": {"base", "config", "domain", "store", "actions", "observability"},
    "channels": {"base", "config", "domain", "store", "actions", "observability"},
    "maintenance": {"config", "store", "bus", "ingest"},
    "worker": {"base", "config", "domain", "store", "bus", "streams", "actions", "ingest", "observability", "channels"},
    "cli": {"base", "config", "domain", "store", "actions", "ingest", "maintenance"},
    "web": {"base", "config", "domain", "store", "bus", "content", "streams", "actions", "ingest", "observability"}
    | {"maintenance", "channels", "worker"},
    "factory": {"config", "store", "bus", "streams", "ingest", "channels", "observability", "worker", "cli", "web"},
}
# Third-party packages that only these may import.
ONLY_IN: dict[str, set[str]] = {
    "flask_limiter": {"web"},
    "flask_wtf": {"web"},
    "flask_migrate": {"store"},
    "flask_sqlalchemy": {"store"},
    "werkzeug": {"web"},
    "itsdangerous": {"web", "channels"},
    "jinja2": {"web", "content", "ingest"},
    "redis": {"bus"},
    "limits": {"web"},
    "httptools": {"web"},
    "gunicorn": {"worker"},
    "argon2": {"actions"},
    "kafka": {"ingest"},
    "nh3": {"content"},
    "markdown_it": {"content"},
    "pydantic": {"config"},
    "prometheus_client": {"observability"},
    "click": {"cli"},
    "alembic": {"store"},
    "authlib": {"web"},
    "joserfc": {"web"},
    "requests": {"web"},
    "opentelemetry": {"observability"},
    "standardwebhooks": {"channels"},
}
# Packages and modules of the standard library alone, and what they may import besides.
STANDARD_LIBRARY_ONLY: dict[str, set[str]] = {
    "base.errors": set(),
    "base.cooperative": {"gevent"},
    "base.numbers": set(),
    "base.private_files": set(),
    "config.database_url": set(),
    "domain": set(),
    "streams.connection": set(),
    "streams.connection_index": set(),
    "streams.control_events": set(),
    "streams.hub": {"gevent"},
    "streams.replay_buffer": {"structlog"},
    "streams.socket_transport": {"gevent"},
    "streams.sse": set(),
    "streams.wsgi_transport": {"gevent"},
    "worker.readiness": set(),
}


def package_of(path: Path) -> str:
    return path.relative_to(CODE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(CODE).with_suffix("").parts)


MODULES = sorted(path for path in CODE.rglob("*.py") if path != CODE / "__init__.py")
NAMES = [str(path.relative_to(TOP)) for path in MODULES]


def imports_of(path: Path) -> Iterator[str]:
    """Every imported module, dotted; `from a import b` gives `a.b`, so that a module imported by its name is seen too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def packages_imported_by(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("broadcast.")}


def third_party_imports_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)} - {"broadcast"} - set(sys.stdlib_module_names)


def test_every_package_is_in_the_table():
    assert {package_of(path) for path in MODULES} == set(MAY_IMPORT)


def test_factory_is_the_only_module_beside_the_packages():
    assert [path.name for path in sorted(CODE.glob("*.py"))] == ["__init__.py", "factory.py"]


def test_packages_import_only_what_stands_above_them():
    above: set[str] = set()
    for package, others in MAY_IMPORT.items():
        assert others <= above, f"{package} may import {sorted(others - above)}, which stand below it"
        above.add(package)


def test_table_allows_no_import_that_nobody_needs():
    imported: dict[str, set[str]] = {package: set() for package in MAY_IMPORT}
    for path in MODULES:
        imported[package_of(path)] |= packages_imported_by(path) - {package_of(path)}
    assert imported == MAY_IMPORT


def test_parts_of_an_application_are_asked_for_by_their_type():
    keys = re.compile(r"extensions\[|extensions\.(get|update)\(")
    # the last two ask for those of Flask-Migrate and Flask-Limiter
    allowed = {CODE / "base" / "app_parts.py", CODE / "store" / "schema.py", CODE / "web" / "core" / "limits.py"}
    assert {path for path in MODULES if keys.search(path.read_text())} == allowed


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_package_imports_only_what_the_table_allows(path):
    package = package_of(path)
    assert packages_imported_by(path) <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_third_party_packages_stay_where_they_are_used(path):
    package, module = package_of(path), module_of(path)
    for prefix, allowed in STANDARD_LIBRARY_ONLY.items():
        if module == prefix or module.startswith(f"{prefix}."):
            assert third_party_imports_of(path) <= allowed
    for name in third_party_imports_of(path) & ONLY_IN.keys():
        assert package in ONLY_IN[name], f"{name} in {package}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_sqlalchemy_is_known_to_the_store_alone(path):
    """Others may catch its errors; actions and channels may name the session that they were handed."""
    found = {name for name in imports_of(path) if name.partition(".")[0] == "sqlalchemy"}
    if package_of(path) == "store":
        return
    allowed = {"sqlalchemy.orm.Session"} if package_of(path) in ("actions", "channels") else set()
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
