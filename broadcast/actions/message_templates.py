"""Save and delete message templates, for administrators."""

from datetime import datetime

from sqlalchemy.exc import IntegrityError

from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.content import markdown, message_templates
from broadcast.domain.actor import Actor
from broadcast.domain.message import MAX_CATEGORY_CHARACTERS, MAX_CONTENT_BYTES, Priority, is_single_line
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audit
from broadcast.store.models import MessageTemplate
from broadcast.store.transactions import write_transaction


def save(
    template_id: int | None,
    *,
    name: str,
    title: str,
    content: str,
    priority: str,
    category: str,
    by: Actor,
    now: datetime,
) -> int:
    """Save a template, a new one without `template_id`; return its id. Raises Invalid, NotFound, Conflict (name)."""
    by.require(Permission.WRITE)
    fields = {"name": " ".join(name.split()), "title": " ".join(title.split()), "content": content.replace("\0", "")}
    fields |= {"priority": priority or Priority.NORMAL.value, "category": " ".join(category.split()) or None}
    fields["variables"] = _read_variables(fields)
    try:
        with write_transaction() as session:
            row = session.get(MessageTemplate, template_id) if template_id else MessageTemplate(created_by=by.user_id)
            if row is None:
                raise NotFound("There is no such template.")
            for field, value in fields.items():
                setattr(row, field, value)
            row.updated_at = now
            session.add(row)
            session.flush()
            audit.record(session, by, "template.saved", "template", row.id, now=now, name=fields["name"])
            return row.id
    except IntegrityError:
        raise Conflict(f"There is a template called {fields['name']} already.") from None


def delete(template_id: int, *, by: Actor, now: datetime) -> None:
    """Delete a template. Raises NotFound."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        row = session.get(MessageTemplate, template_id)
        if row is None:
            raise NotFound("There is no such template.")
        audit.record(session, by, "template.deleted", "template", row.id, now=now, name=row.name)
        session.delete(row)


def _read_variables(fields: dict[str, str | None]) -> list[str]:
    """The names of the template's variables. Raises Invalid for a template that cannot become a message."""
    problems = {}
    if not 0 < len(fields["name"]) <= 80 or not is_single_line(fields["name"]) or is_blank(fields["name"]):
        problems["name"] = "Enter a name of 1 to 80 characters."
    if not 0 < len(fields["title"]) <= 400 or not is_single_line(fields["title"]) or is_blank(fields["title"]):
        problems["title"] = "Enter a title of 1 to 400 characters."
    if is_blank(fields["content"]) or len(fields["content"].encode("utf-8", "replace")) > MAX_CONTENT_BYTES:
        problems["content"] = f"Enter a text of at most {MAX_CONTENT_BYTES:,} bytes."
    if fields["priority"] not in set(Priority):
        problems["priority"] = "Choose one of the priorities."
    if fields["category"] and (
        len(fields["category"]) > MAX_CATEGORY_CHARACTERS or not is_single_line(fields["category"])
    ):
        problems["category"] = f"A category has at most {MAX_CATEGORY_CHARACTERS} characters."
    if problems:
        raise Invalid(problems)
    names = message_templates.list_variables(fields["title"], fields["content"])
    if not names:
        markdown.render(fields["content"])  # without variables the text is final, so it can be checked now
    return names
