"""The console's library: save and delete message templates and named audiences."""

from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions.audiences import resolve_audience
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.content import markdown, message_templates
from broadcast.domain import message
from broadcast.domain.actor import Actor
from broadcast.domain.message import Priority, is_single_line, is_visible_line, parse_target
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audit
from broadcast.store.models import MessageTemplate, SavedAudience
from broadcast.store.transactions import write_transaction

_MODELS = {"audience": SavedAudience, "template": MessageTemplate}
_NAME_INVALID = "Enter a name of 1 to 80 characters."


def save_audience(name: str, raw: dict[str, Any], *, by: Actor, now: datetime) -> int:
    """Save an audience under a name; return its id. Raises Invalid, Conflict (the name is taken)."""
    by.require(Permission.WRITE)
    name = " ".join(name.split())
    if not is_visible_line(name, 80):
        raise Invalid({"name": _NAME_INVALID})
    resolve_audience(parse_target(raw))
    try:
        return _save("audience", None, {"name": name, "target": raw, "created_at": now}, by, now)
    except IntegrityError:
        raise Conflict(f"There is an audience called {name} already.") from None


def save_template(template_id: int | None, typed: dict[str, str], *, by: Actor, now: datetime) -> int:
    """Save a template, a new one without `template_id`; return its id. Raises Invalid, NotFound, Conflict (name)."""
    by.require(Permission.WRITE)
    values: dict[str, Any] = {name: " ".join(typed[name].split()) for name in ("name", "title", "category")}
    values |= {"category": values["category"] or None, "content": typed["content"].replace("\0", "")}
    values |= {"priority": typed["priority"] or Priority.NORMAL.value}
    values |= {"variables": _read_variables(values), "updated_at": now}
    try:
        return _save("template", template_id, values, by, now)
    except IntegrityError:
        raise Conflict(f"There is a template called {values['name']} already.") from None


def _save(noun: str, row_id: int | None, values: dict[str, Any], by: Actor, now: datetime) -> int:
    """Store these columns. Raises IntegrityError for a taken name."""
    with write_transaction() as session:
        row = _get(session, noun, row_id) if row_id else _MODELS[noun](created_by=by.user_id)
        for column, value in values.items():
            setattr(row, column, value)
        session.add(row)
        session.flush()
        audit.record(session, by, f"{noun}.saved", noun, row.id, now=now, name=row.name)
        return row.id


def delete(noun: str, row_id: int, *, by: Actor, now: datetime) -> None:
    """Delete an "audience" or a "template"; broadcasts made with it do not change. Raises NotFound."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        row = _get(session, noun, row_id)
        audit.record(session, by, f"{noun}.deleted", noun, row.id, now=now, name=row.name)
        session.delete(row)


def _get(session: Session, noun: str, row_id: int) -> Any:
    if (row := session.get(_MODELS[noun], row_id)) is None:
        raise NotFound(f"There is no such {noun}.")
    return row


def _read_variables(values: dict[str, str | None]) -> list[str]:
    """The names of the template's variables. Raises Invalid for a template that cannot become a message."""
    problems = {}
    if not is_visible_line(values["name"], 80):
        problems["name"] = _NAME_INVALID
    if not is_visible_line(values["title"], 400):
        problems["title"] = "Enter a title of 1 to 400 characters."
    if is_blank(values["content"]) or len(values["content"].encode("utf-8", "replace")) > message.MAX_CONTENT_BYTES:
        problems["content"] = f"Enter a text of at most {message.MAX_CONTENT_BYTES:,} bytes."
    if values["priority"] not in set(Priority):
        problems["priority"] = "Choose one of the priorities."
    if values["category"] and (
        len(values["category"]) > message.MAX_CATEGORY_CHARACTERS or not is_single_line(values["category"])
    ):
        problems["category"] = f"A category has at most {message.MAX_CATEGORY_CHARACTERS} characters."
    if problems:
        raise Invalid(problems)
    names = message_templates.list_variables(values["title"], values["content"])
    if not names:
        markdown.render(values["content"])  # without variables the text is final, so it can be checked now
    return names
