"""Static files: a file that browsers may cache forever has its content in its name, whichever node answers."""

import gzip
import os
import re
import shutil
from pathlib import Path

import pytest

from broadcast.web.core.static_files import StaticFiles

TOP = Path(__file__).resolve().parents[4]
GZIP = {"Accept-Encoding": "gzip, br"}


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="(/static/[^"]+\?v=[^"]+)"', page)


def test_file_under_its_own_hash_is_kept_for_ever(client):
    alice = client("alice")
    found = addresses(alice.get("/inbox").text)
    assert len(found) > 5
    for address in found:
        answer = alice.get(address)
        assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True), address
        etag = answer.headers["ETag"]
        assert "immutable" in alice.get(address, headers={"If-None-Match": etag}).headers["Cache-Control"]


@pytest.mark.parametrize("v", ["1", "", "0" * 12, "missing", "%00", "x" * 2000])
@pytest.mark.parametrize(
    "name", ["core/app.css", "inbox/live.js", "vendor/htmx-4.0.1.min.js", "nothing.js", "vendor", "../app.py"]
)
def test_no_other_content_stands_under_a_hash(client, name: str, v: str):
    answer = client().get(f"/static/{name}?v={v}")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")


def test_two_hashes_are_none(client):
    alice = client("alice")
    address = addresses(alice.get("/inbox").text)[0]
    assert alice.get(f"{address}&v=1").status_code == 404


def test_file_without_a_hash_is_kept_for_minutes_and_one_that_is_missing_not_at_all(client):
    assert client().get("/static/core/app.css").headers["Cache-Control"] == "public, max-age=300"
    assert client().get("/static/nothing.css").headers["Cache-Control"] == "no-store"


def test_node_of_another_version_gives_nothing_out_under_the_name_of_ours(make_app, client, tmp_path, monkeypatch):
    page = client("alice").get("/inbox").text
    [ours] = [address for address in addresses(page) if "/app.css" in address]
    [same] = [address for address in addresses(page) if "/live.js" in address]
    folder = tmp_path / "static"
    shutil.copytree(make_app().static_folder, folder)
    (folder / "core/app.css").write_text("body { color: red }")
    for name in ("templates", "migrations"):
        (tmp_path / name).symlink_to(TOP / name)
    monkeypatch.setattr("broadcast.factory._PROJECT_ROOT", tmp_path)
    other = make_app().test_client()
    assert (other.get(ours).status_code, other.get(ours).headers["Cache-Control"]) == (404, "no-store")
    assert other.get("/static/core/app.css").text == "body { color: red }"
    assert "immutable" in other.get(same).headers["Cache-Control"]


def test_file_that_is_replaced_under_a_running_node_gets_another_name(tmp_path: Path):
    file = tmp_path / "a.js"
    file.write_text("one")
    files = StaticFiles(str(tmp_path))
    first = files.get_hash("a.js")
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert files.get_hash("a.js") not in (None, first)
    assert files.get_hash("b.js") is None


@pytest.mark.parametrize("name", ["core/app.css", "vendor/htmx-4.0.1.min.js"])
def test_text_is_compressed_for_whoever_reads_it_and_the_same_when_unpacked(client, name: str):
    plain, packed = client().get(f"/static/{name}"), client().get(f"/static/{name}", headers=GZIP)
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in plain.headers
    assert (packed.headers["Content-Encoding"], packed.mimetype) == ("gzip", plain.mimetype)
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data) / 2
    assert packed.headers["ETag"] != plain.headers["ETag"]
    repeated = client().get(f"/static/{name}", headers=GZIP | {"If-None-Match": packed.headers["ETag"]})
    assert (repeated.status_code, repeated.data) == (304, b"")


@pytest.mark.parametrize(
    "headers", [{}, {"Accept-Encoding": "br, gzip;q=0"}, {"Accept-Encoding": "gzip", "Range": "bytes=0-9"}]
)
def test_text_is_plain_for_whoever_asks_for_it_so(client, headers: dict[str, str]):
    answer = client().get("/static/core/app.css", headers=headers)
    assert "Content-Encoding" not in answer.headers
    assert answer.status_code in (200, 206)


@pytest.mark.parametrize(
    "path", ["/static/nothing.css", "/static/../app.py", "/static/core/app.css?v=000000000000", "/static/vendor.css"]
)
def test_nothing_else_is_compressed(client, path: str):
    assert client().get(path, headers=GZIP).status_code == 404


def test_file_that_is_replaced_is_compressed_anew(tmp_path: Path):
    file = tmp_path / "a.js"
    file.write_text("one")
    files = StaticFiles(str(tmp_path))
    assert gzip.decompress(files.get_compressed("a.js")) == b"one"
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert gzip.decompress(files.get_compressed("a.js")) == b"two"
    assert files.get_compressed("b.png") is None
