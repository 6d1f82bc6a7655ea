"""The documentation matches the code."""

import json
import re
import tomllib
from pathlib import Path

from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.inbound import Command, InboundRecord, PublishCommand, RecordPosition
from broadcast.ingest import contract, rules_file

TOP = Path(__file__).resolve().parents[3]


def test_every_setting_is_documented_with_its_default_and_sentence():
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", (TOP / "docs/settings.md").read_text(), re.M)
    documented = {name: (default, sentence) for name, default, sentence in rows}
    in_code = {name.upper(): (shown(field.default), field.description) for name, field in Settings.model_fields.items()}
    assert documented == in_code


def shown(default: object) -> str:
    if default in (None, [], {}):
        return "—"
    default = ",".join(default) if isinstance(default, list) else default
    return f"`{int(default) if isinstance(default, bool) else default}`"


def test_the_documents_name_only_files_that_exist():
    for document in [TOP / "README.md", TOP / "CHANGELOG.md", *TOP.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_vendored_files_are_what_their_checksums_say():
    import hashlib

    vendor = TOP / "static/vendor"
    for line in (vendor / "sha256sums").read_text().splitlines():
        checksum, name = line.split()
        assert hashlib.sha256((vendor / name.lstrip("*")).read_bytes()).hexdigest() == checksum, name
    named = {line.split()[1].lstrip("*") for line in (vendor / "sha256sums").read_text().splitlines()}
    assert {path.name for path in vendor.glob("*.js")} <= named


def test_examples_of_events_are_read_as_they_say():
    """The same bytes that the README and docs/events.md tell people to send."""
    read = {name: _read_example(name) for name in ("publish", "cancel", "bare")}
    assert isinstance(read["publish"], PublishCommand)
    assert read["publish"].source_id == read["cancel"].cancelled_source_id
    assert read["bare"].source_id == "key"


def test_example_of_rules_is_read_as_it_stands():
    held = rules_file.load_rules(TOP / "docs/events/rules.toml")
    event = {"specversion": "1.0", "id": "1", "source": "https://monitor", "type": "com.example.check.failed.v1"}
    data = {"check": "Disk", "host": "web-1", "output": "93 %"}
    reading = contract.read_command(_record(json.dumps(event | {"data": data}).encode()), now=clock.now(), rules=held)
    assert (reading.draft.title, reading.collapse_key) == ("Disk fails on web-1", "Disk/web-1")
    assert [rule.rate_cap is not None for rule in held] == [True, True, False]


def test_schema_of_events_names_the_fields_that_are_read():
    schema = json.loads((TOP / "docs/events/event.schema.json").read_text())
    fields = schema["$defs"]["publish"]["properties"]
    for name in fields:
        problems = contract.read_command(_record(json.dumps({name: {}}).encode()), now=clock.now()).reason
        assert "There is no such field" not in problems, name
    assert schema["properties"]["type"]["enum"] == [contract.PUBLISH_TYPE, contract.CANCEL_TYPE]


def _read_example(name: str) -> Command:
    return contract.read_command(_record((TOP / f"docs/events/{name}.json").read_bytes()), now=clock.now())


def _record(value: bytes) -> InboundRecord:
    return InboundRecord(value, key=b"key", position=RecordPosition("topic", 0, 0))


def test_verification_names_only_tests_that_exist():
    """A file, a folder, or `file::test`; `::test` alone is in the file before it."""
    file = TOP
    for name, test in re.findall(r"`(tests/[\w/.]+)?(?:::(test_\w+))?`", (TOP / "docs/verification.md").read_text()):
        file = TOP / name if name else file
        assert file.exists(), name
        assert not test or f"def {test}(" in file.read_text(), f"{name}::{test}"


def test_changelog_has_the_version_of_the_program_and_of_its_image():
    text = (TOP / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text, re.M)
    assert versions == sorted(versions, reverse=True)
    newest = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
    assert versions[0][0] == newest
    assert f"newTag: {newest}\n" in (TOP / "deploy/kubernetes/kustomization.yaml").read_text()
    headings = set(re.findall(r"^### (.*)$", text, re.M))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # keepachangelog.com


def test_links_to_a_section_lead_to_one():
    for document in [TOP / "README.md", TOP / "CHANGELOG.md", *TOP.glob("docs/*.md")]:
        for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text()):
            text = ((document.parent / target) if target else document).read_text()
            titles = [re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in _titles(text)]
            assert section in titles, f"{document.name}: {target}#{section}"


def _titles(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)


def test_architecture_names_every_package_and_module_of_the_program():
    table = (TOP / "docs/architecture.md").read_text().partition("Imports run one way")[0]
    named = {name.strip("/").removeprefix("broadcast/") for name in re.findall(r"`([\w./]+)`", table)}
    for path in (TOP / "broadcast").iterdir():
        if path.suffix == ".py" and path.name != "__init__.py" or (path / "__init__.py").exists():
            assert path.name in named, path.name
