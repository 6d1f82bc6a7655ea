"""What is kept for the next time: message templates with variables, and audiences with a name."""

from typing import Any

from flask import Blueprint, flash, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response

from broadcast.actions import audiences as audience_actions
from broadcast.actions import edits
from broadcast.actions import message_templates as actions
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.content import message_templates
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import audiences
from broadcast.store import message_templates as templates
from broadcast.store.models import MessageTemplate
from broadcast.web.console.broadcasts import compose_form
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page
from broadcast.web.core.resumable_forms import pause_if_resumed, resumable

blueprint = Blueprint("library", __name__, url_prefix="/library")

_FIELDS = ("name", "title", "content", "priority", "category")


@blueprint.get("")
@allow(Permission.WRITE)
def shelves():
    return page("console/broadcasts/library.html", templates=templates.every(), audiences=audiences.saved())


@blueprint.get("/audiences/<int:saved_id>")
@allow(Permission.WRITE)
def audience(saved_id: int):
    """The public fields of a named audience, with which the compose page fills its form in."""
    saved = audiences.saved_by_id(saved_id)
    if saved is None:
        raise NotFound("There is no such audience.")
    return jsonify(saved.target)


@blueprint.get("/templates/new")
@allow(Permission.WRITE)
def new_template():
    return _draw(dict.fromkeys(_FIELDS, "") | {"priority": "NORMAL"}, {}, None)


@blueprint.get("/templates/<int:template_id>")
@allow(Permission.WRITE)
def edit_template(template_id: int):
    template = _found(template_id)
    return _draw({name: getattr(template, name) or "" for name in _FIELDS}, {}, template_id)


@blueprint.post("/templates")
@resumable
@allow(Permission.WRITE)
def create_template():
    return _save(None)


@blueprint.post("/templates/<int:template_id>")
@resumable
@allow(Permission.WRITE)
def save_template(template_id: int):
    return _save(template_id)


@blueprint.post("/templates/<int:template_id>/delete")
@allow(Permission.WRITE)
def delete_template(template_id: int):
    actions.delete(template_id, by=me().actor, now=clock.now())
    flash("The template is deleted.")
    return redirect(url_for("console.library.shelves"), 303)


@blueprint.get("/templates/<int:template_id>/use")
@allow(Permission.WRITE)
def fill_in(template_id: int):
    template = _found(template_id)
    return page("console/broadcasts/use.html", kept=template, names=_variables(template), values={}, error=None)


@blueprint.post("/templates/<int:template_id>/use")
@resumable
@allow(Permission.WRITE)
def use(template_id: int):
    """Fill the variables in, and go on with a draft."""
    template = _found(template_id)
    names = _variables(template)
    values = {name: request.form.get(f"var-{name}", "").replace("\0", "").strip() for name in names}
    try:
        pause_if_resumed()
        title, content = (message_templates.fill(text, values) for text in (template.title, template.content))
    except Invalid as invalid:
        return page(
            "console/broadcasts/use.html", kept=template, names=names, values=values, error=str(invalid) or None
        ), invalid.status
    typed = compose_form.empty() | {"title": title, "content": content, "priority": template.priority}
    typed["category"] = template.category or ""
    saved = edits.save_draft(typed, None, broadcast_id=None, version=None, by=me().actor, now=clock.now())
    return redirect(url_for("console.compose.edit", broadcast_id=saved.id), 303)


@blueprint.post("/audiences/<int:saved_id>/delete")
@allow(Permission.WRITE)
def delete_audience(saved_id: int):
    audience_actions.forget(saved_id, by=me().actor, now=clock.now())
    flash("The audience is deleted. Broadcasts made with it stay as they are.")
    return redirect(url_for("console.library.shelves"), 303)


def _save(template_id: int | None) -> Any:
    form = {name: request.form.get(name, "").replace("\0", "") for name in _FIELDS}
    try:
        pause_if_resumed()
        actions.save(template_id, **form, by=me().actor, now=clock.now())
    except Invalid as invalid:
        return _draw(form, invalid.fields, template_id), invalid.status
    except Conflict as conflict:
        return _draw(form, {"name": str(conflict)}, template_id), conflict.status
    flash("The template is kept.")
    return _to_shelves()


def _to_shelves() -> Response:
    return redirect(url_for("console.library.shelves"), 303)


def _draw(form: dict[str, str], errors: dict[str, str], template_id: int | None) -> str:
    priorities = [priority.value for priority in Priority]
    return page(
        "console/broadcasts/template.html", form=form, errors=errors, priorities=priorities, template_id=template_id
    )


def _found(template_id: int) -> MessageTemplate:
    template = templates.by_id(template_id)
    if template is None:
        raise NotFound("There is no such template.")
    return template


def _variables(template: MessageTemplate) -> list[str]:
    return message_templates.variables(template.title, template.content)
