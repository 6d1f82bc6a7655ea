"""Signed CSV: an export verifies only if it is genuine, complete and unchanged; and no cell is a formula."""

import csv
import io

import pytest

from broadcast.domain import clock
from broadcast.domain.signed_csv import SignedCsvEncoder, has_valid_signature

KEY = "k" * 40


def exported(*rows) -> bytes:
    file = SignedCsvEncoder(KEY)
    return b"".join([file.encode([("name", "at")]), file.encode(rows), file.finish()])


def test_export_is_genuine_under_any_key_still_accepted():
    data = exported(("Ünal, “A”", None), ("b\nc", 3))
    assert has_valid_signature(data, ["other", KEY])
    assert not has_valid_signature(data, ["other"])
    assert [row[0] for row in csv.reader(io.StringIO(data.decode(), newline=""))][:3] == ["name", "Ünal, “A”", "b\nc"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"bob", b"eve"), lambda data: data[:-4], lambda data: data.rpartition(b"#")[0],
        lambda data: data.partition(b"\r\n")[2], lambda data: b"", lambda data: data.upper(),
    ],
)  # fmt: skip
def test_changed_or_cut_export_is_not(change):
    data = exported(("bob", 1), ("dana", 2))
    assert has_valid_signature(data, [KEY])
    assert not has_valid_signature(change(data), [KEY])


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_cell_that_a_spreadsheet_would_run_is_text(cell):
    assert f"'{cell}".encode() in exported((cell, None))


def test_moment_is_written_as_on_the_wire():
    now = clock.now()
    assert clock.to_rfc3339(now).encode() in exported(("x", now))
