"""Tables from different spreadsheets are read alike; input that is no table is a bad row, never a crash."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.base.errors import Invalid
from broadcast.domain import csv_reader
from broadcast.domain.csv_reader import decode_table, parse_rows, split_single_line

ROWS = [["username", "name"], ["jürgen", "Müller; Jürgen, Dr."], ["erin", "Erin\nEvans"], ["ana", 'Ana "Bo" Lis']]


def cells(text: str) -> list[list[str]]:
    return [record.cells for record in parse_rows(text) if any(record.cells)]


def written(delimiter: str, end: str) -> str:
    return end.join(delimiter.join(f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in row) for row in ROWS) + end


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_every_delimiter_and_line_end_reads_the_same(delimiter, end):
    assert cells(written(delimiter, end)) == ROWS
    assert cells("\ufeff" + written(delimiter, end)) == ROWS


def test_line_that_names_the_delimiter_is_obeyed():
    assert cells("sep=|\r\nusername|name\r\nerin|a;b;c\r\n") == [["username", "name"], ["erin", "a;b;c"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_encoding_of_excel_is_read(encoding):
    text = "username\tname\nerin\tZoë Żak\n"
    decoded, guessed = decode_table(text.encode(encoding))
    assert (cells(decoded), guessed) == ([["username", "name"], ["erin", "Zoë Żak"]], None)


def test_windows_1252_is_read_and_said_to_be_a_guess():
    assert decode_table("erin;Jürgen".encode("cp1252")) == ("erin;Jürgen", "Windows-1252")


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04" + bytes(40), b"\xd0\xcf\x11\xe0" + bytes(40), b"\xff\xfea", b"\x81\x8d\x90"]
)
def test_what_is_no_text_is_refused(data):
    with pytest.raises(Invalid, match="CSV UTF-8"):
        decode_table(data)


def test_quotation_mark_that_is_never_closed_costs_its_own_row_only():
    text = 'username;name\nerin;"Erin\n' + "".join(f"p{n};P\n" for n in range(50))
    found = list(parse_rows(text))
    assert [record.line for record in found if record.problem] == [2]
    assert len(found) == 52


def test_quotation_mark_within_a_name_is_a_letter():
    assert cells('erin,O"Brien\nfay,D"Arcy\n') == [["erin", 'O"Brien'], ["fay", 'D"Arcy']]


def test_line_numbers_are_those_of_the_file():
    text = 'username,name\n\n"erin","E\n\nE"\nfay,F\n'
    assert [(record.line, record.cells[:1]) for record in parse_rows(text) if any(record.cells)] == [
        (1, ["username"]),
        (3, ["erin"]),
        (6, ["fay"]),
    ]


def test_signature_of_our_own_export_is_no_row():
    assert cells("username\nbob\n# signature hmac-sha256 abc\n") == [["username"], ["bob"]]


@pytest.mark.parametrize(
    "text",
    ["\n" * 3_000_000, "a\n" * 470_000, "a," * 1_000_000, "b\n" + "a;" * 1_000_000, '"\n' * 400_000, '",' * 900_000,
     'x,"\n' * 400_000, "a,b\n" + '"' + "x" * 3_000_000],
)  # fmt: skip
def test_no_text_makes_more_records_or_cells_than_fit(text):
    steps = 0
    for record in parse_rows(text):
        steps += 1
        assert len(record.cells) <= 1000
        assert len(record.text) <= 20_000
    assert steps <= 4 * csv_reader.MAX_ROWS + 2


def test_list_in_one_line_is_cut_before_it_is_split():
    assert split_single_line("a, b ,'c") == ["a", "b", "'c"]
    assert len(split_single_line("a," * 1_000_000)) == csv_reader.MAX_ROWS + 1
    assert split_single_line("a\nb") is None


@given(st.text(alphabet=st.sampled_from('ab";,\t\r\n \u2028\0é'), max_size=200), st.integers(0, 5))
def test_any_text_is_read_to_its_end_and_never_fails(text, most):
    lines = [record.line for record in parse_rows(text, max_rows=most)]
    assert lines == sorted(set(lines))


@given(st.binary(max_size=100))
def test_any_bytes_are_text_or_refused(data):
    with contextlib.suppress(Invalid):
        assert isinstance(decode_table(data)[0], str)
