"""Upgrade from the previous version without downtime: migrations first, then one node after the other.

The previous version works on the new schema (expand and contract: docs/operations.md), alone and next to a new node.
"""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.databases import DATABASE_URL, SECOND_REDIS_URL, temporary_database
from tests.support.nodes import Nodes, proxy_nodes, shared_servers
from tests.support.process_fixtures import StreamOpener
from tests.support.publish_load import PublishLoad, expect_all_delivered, list_log_ids, record_load
from tests.support.servers import find_program_or_skip
from tests.support.system import PROJECT_ROOT, System

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

_BEFORE = "b99b706"  # the commit that an upgrade of the tests begins at
_SEED_MODULE_BEFORE = "tests.populate"  # where that version has it
_STREAMS = 5  # of each reader
_MESSAGES = 40  # under load, in each state of the upgrade


@pytest.fixture(scope="module")
def code_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the version before."""
    if (
        not shutil.which("git")
        or subprocess.run(
            ["git", "cat-file", "-e", f"{_BEFORE}^{{commit}}"], cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL
        ).returncode
    ):
        pytest.skip(f"this copy of the repository does not have the version before (git fetch --unshallow: {_BEFORE})")
    folder = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", _BEFORE], cwd=PROJECT_ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def prepared(code: Path, folder: Path, **settings: str) -> System:
    folder.mkdir()
    system = System(folder, **settings)
    use_code(system, code)
    return system


def use_code(system: System, code: Path) -> None:
    """Run this version from now on, with the setting under the name that it has there."""
    names = ("FORWARDED_HOPS", "TRUSTED_PROXY_HOPS")
    if hops := system.environ.pop(names[0], "") or system.environ.pop(names[1], ""):
        system.environ[names[code == PROJECT_ROOT]] = hops
    system.code_dir = code


def begin(system: System) -> None:
    """Make the database as the code of that node does, and add the cast."""
    migrate(system, system.code_dir)
    system._tokens = json.loads(
        system.run_module(_SEED_MODULE_BEFORE if system.code_dir != PROJECT_ROOT else "tests.support.seed_test_users")
    )


def migrate(system: System, code: Path) -> None:
    """Run the migrations of that version, as its image would; the node itself stays what it is."""
    before = system.code_dir
    use_code(system, code)
    system.run_module("flask", "--app", "app", "db", "upgrade")
    use_code(system, before)


def replace(node: System) -> None:
    node.stop()
    use_code(node, PROJECT_ROOT)
    node.start()


def use(system: System, streams: StreamOpener, title: str) -> None:
    """Publish, see it on a stream, read it, acknowledge it, change it and recall it, all at this node."""
    alice, bob = system.get_token("alice", "admin"), system.get_token("bob")
    stream = streams.open(system, "bob")
    body = {"title": title, "content": "Text", "targetType": "ALL", "requiresAck": True}
    status, sent = system.call("POST", "/api/admin/broadcasts", token=alice, body=body)
    assert status == 201, sent
    stream.wait_for_message(sent["id"])
    for verb in ("read", "acknowledge"):
        path, body = f"/api/user/messages/{verb}", {"broadcastIds": [sent["id"]]}
        status, told = system.call("POST", path, token=bob, body=body)
        assert status == 200, told
    status, listed = system.call("GET", "/api/user/messages?view=all", token=bob)
    [item] = [item for item in listed["items"] if item["id"] == sent["id"]]
    assert status == 200
    assert item["read"]
    assert item["acknowledgedAt"]
    status, told = system.call("DELETE", f"/api/admin/broadcasts/{sent['id']}", token=alice, body={"reason": "Over"})
    assert status == 200, told
    stream.wait_for("MESSAGE_REMOVED")


def test_version_before_works_on_the_schema_of_this_one(code_before: Path, tmp_path: Path, streams: StreamOpener):
    settings = {"SECRET_KEY": secrets.token_hex(32)}
    with temporary_database(DATABASE_URL) as database, ExitStack() as stack:
        system = prepared(code_before, tmp_path / "node", database_url=database, redis_url=SECOND_REDIS_URL, **settings)
        begin(system)
        stack.push(system)
        system.start()
        use(system, streams, "On its own schema")
        migrate(system, PROJECT_ROOT)
        use(system, streams, "On the schema of this version")
        assert system.call("GET", "/readyz", token=system.get_token("bob"))[0] == 200
        replace(system)
        use(system, streams, "Upgraded")


@pytest.fixture
def two_nodes_before(code_before: Path, tmp_path: Path) -> Iterator[Nodes]:
    for name in ("nginx", "openssl"):
        find_program_or_skip(name, name)
    with ExitStack() as stack:
        settings = stack.enter_context(shared_servers(tmp_path)) | {"TRUSTED_PROXY_HOPS": "1"}
        first, second = (prepared(code_before, tmp_path / name, **settings) for name in ("first", "second"))
        begin(first)
        second._tokens = first._tokens
        for node in (first, second):
            stack.push(node)
            node.start()
        yield stack.enter_context(proxy_nodes(tmp_path, first, second))


def test_two_nodes_are_upgraded_one_by_one_under_load(two_nodes_before: Nodes, streams: StreamOpener):
    nodes = two_nodes_before
    readers = [reader for name in ("bob", "charlie") for reader in streams.open_many(nodes.via_proxy, name, _STREAMS)]
    load = PublishLoad(nodes.via_proxy)
    with load:
        load.wait_until_sent(_MESSAGES)
        migrate(nodes.first, PROJECT_ROOT)
        load.wait_until_sent(load.count + _MESSAGES)
        for node in nodes.nodes:
            replace(node)
            load.wait_until_sent(load.count + _MESSAGES)
    expect_all_delivered(readers, list_log_ids(nodes.first), load.sent_ids)
    record_load("an upgrade of two nodes, one by one", load, readers)
