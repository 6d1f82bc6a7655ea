"""Parses JSON bodies, paging, numbers, texts and form buttons. Raises Invalid with a sentence per field."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flask import request

from broadcast.base.errors import Conflict, Invalid
from broadcast.base.numbers import parse_number
from broadcast.domain.confirmation import ConfirmationInput

MAX_PAGE_SIZE = 200  # items in a page
_MAX_FIELDS = 200  # of a body; unknown ones are reported by name


def read_json_object(*, may_be_empty: bool = False) -> dict[str, Any]:
    """The body as a JSON object. Raises Invalid for any other body; a body that is too large stays a 413."""
    if may_be_empty and not request.content_length:
        return {}
    try:
        body = request.get_json(silent=True) if request.is_json else None
    except RecursionError:  # ten thousand nested brackets
        body = None
    if not isinstance(body, Mapping):
        raise Invalid({"body": "Send one JSON object, with Content-Type: application/json."})
    if len(body) > _MAX_FIELDS:
        raise Invalid({"body": f"Send one JSON object of at most {_MAX_FIELDS} fields."})
    return dict(body)


def reject_unknown_fields(body: Mapping[str, Any], *known_names: str) -> None:
    if unknown := body.keys() - set(known_names):
        raise Invalid({str(name)[:60]: "There is no such field." for name in unknown})


def read_choice(field_name: str, choices: Collection[str], default: str) -> str:
    """The value of a button or radio field; `default` when it is missing. Raises Invalid for any other value."""
    chosen = request.form.get(field_name) or default
    if chosen not in choices:
        raise Invalid({field_name: "This form asks for an unknown action. Reload the page and try again."})
    return chosen


def pop_confirmation(body: dict[str, Any]) -> ConfirmationInput | None:
    """Remove `confirm` from a body and return it: `{people, password}`, as a refusal asked for it. Raises Invalid."""
    raw = body.pop("confirm", None)
    if raw is None:
        return None
    people, password = (raw.get("people"), raw.get("password", "")) if isinstance(raw, Mapping) else (None, None)
    has_known_fields = isinstance(raw, Mapping) and not raw.keys() - {"people", "password"}
    if (
        not has_known_fields
        or not isinstance(password, str)
        or not is_encodable(password)
        or not (people is None or type(people) is int)
    ):
        raise Invalid({"confirm": "confirm must be an object: {people: a number, password: text}."})
    return ConfirmationInput(typed_count=people, password=password)


def read_text(values: Mapping[str, str], name: str, max_characters: int) -> str:
    """A text of a query or form, without spaces around it; empty when it is missing."""
    return values.get(name, "").replace("\0", "").strip()[:max_characters]  # PostgreSQL text cannot hold NUL


def read_known(values: Mapping[str, str], name: str, choices: Collection[str], default: str) -> str:
    """A value of a query; `default` for an unknown one, as a link from elsewhere may carry it."""
    value = values.get(name, default)
    return value if value in choices else default


def to_form_errors(problem: Invalid | Conflict, field_name: str) -> dict[str, str]:
    """The sentences by field; that of a conflict is for `field_name`."""
    return problem.fields if isinstance(problem, Invalid) else {field_name: str(problem)}


def is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_paging() -> tuple[int | None, int]:
    """`?after=`, None when it is missing, and `?limit=`."""
    after = request.args.get("after")
    return None if after is None else require_number(after, "after"), read_limit()


def read_limit() -> int:
    """`?limit=`: how many items a page has."""
    return read_number("limit", 30, minimum=1, maximum=MAX_PAGE_SIZE)


def read_number(name: str, default: int, *, minimum: int, maximum: int) -> int:
    """A number of the query; `default` when it is missing."""
    number = parse_number(request.args.get(name, str(default)))
    if number is None or not minimum <= number <= maximum:
        raise Invalid({name: f"{name} must be a number from {minimum} to {maximum:,}."})
    return number


def require_number(text: str | None, field_name: str, problem: str = "") -> int:
    """The number; `problem` is the sentence for any other text."""
    number = parse_number(text)
    if number is None:
        raise Invalid({field_name: problem or f"{field_name} must be a whole number."})
    return number


def parse_ids(texts: Iterable[str]) -> list[int]:
    """The ids in these texts; others are left out."""
    return [number for number in map(parse_number, texts) if number]
