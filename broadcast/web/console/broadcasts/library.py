"""The library: message templates with variables, and saved audiences."""

from flask import Blueprint, jsonify, request

from broadcast.actions import edits, library
from broadcast.base.errors import Conflict, Invalid
from broadcast.content import message_templates
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import audiences
from broadcast.store import message_templates as templates
from broadcast.store.models import MessageTemplate
from broadcast.web.console.broadcasts import compose_form
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import or_404
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import to_form_errors
from broadcast.web.core.resumable_forms import raise_if_resumed

blueprint = Blueprint("library", __name__, url_prefix="/library")

_TEMPLATE_FIELDS = ("name", "title", "content", "priority", "category")


@blueprint.get("")
@allow(Permission.WRITE)
def index():
    values = {"templates": templates.list_all(), "audiences": audiences.list_saved()}
    return render_page("console/broadcasts/library.html", **values)


@blueprint.get("/audiences/<int:saved_id>")
@allow(Permission.WRITE)
def audience(saved_id: int):
    """The public fields of a saved audience, which the compose page fills its form with."""
    return jsonify(or_404(audiences.get_saved(saved_id), "There is no such audience.").target)


@blueprint.get("/templates/new")
@allow(Permission.WRITE)
def new_template():
    return _render_form(dict.fromkeys(_TEMPLATE_FIELDS, "") | {"priority": "NORMAL"}, {}, None)


@blueprint.get("/templates/<int:template_id>")
@allow(Permission.WRITE)
def edit_template(template_id: int):
    template = _get_template_or_404(template_id)
    return _render_form({name: getattr(template, name) or "" for name in _TEMPLATE_FIELDS}, {}, template_id)


@blueprint.post("/templates")
@blueprint.post("/templates/<int:template_id>")
@allow(Permission.WRITE, is_resumable=True)
def save_template(template_id: int | None = None):
    form = {name: request.form.get(name, "").replace("\0", "") for name in _TEMPLATE_FIELDS}
    try:
        raise_if_resumed()
        library.save_template(template_id, form, by=current_identity().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        return _render_form(form, to_form_errors(problem, "name"), template_id), problem.status
    return redirect_to("console.library.index", "Template saved.")


@blueprint.post("/templates/<int:template_id>/delete")
@allow(Permission.WRITE)
def delete_template(template_id: int):
    library.delete("template", template_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.library.index", "Template deleted.")


@blueprint.get("/templates/<int:template_id>/use")
@allow(Permission.WRITE)
def fill_in(template_id: int):
    return _render_variables(_get_template_or_404(template_id), {}, None)


@blueprint.post("/templates/<int:template_id>/use")
@allow(Permission.WRITE, is_resumable=True)
def create_draft(template_id: int):
    message_template = _get_template_or_404(template_id)
    variables = message_templates.list_variables(message_template.title, message_template.content)
    values = {name: request.form.get(f"var-{name}", "").replace("\0", "").strip() for name in variables}
    try:
        raise_if_resumed()
        filled = {
            name: message_templates.fill_template(getattr(message_template, name), values)
            for name in ("title", "content")
        }
    except Invalid as invalid:
        return _render_variables(message_template, values, str(invalid) or None), invalid.status
    typed = compose_form.build_empty_form() | filled
    typed |= {"priority": message_template.priority, "category": message_template.category or ""}
    draft = edits.save_draft(typed, None, broadcast_id=None, version=None, by=current_identity().actor, now=clock.now())
    return redirect_to("console.compose.edit", broadcast_id=draft.id)


@blueprint.post("/audiences/<int:saved_id>/delete")
@allow(Permission.WRITE)
def delete_audience(saved_id: int):
    library.delete("audience", saved_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.library.index", "Audience deleted. Existing broadcasts are not affected.")


def _render_form(form: dict[str, str], errors: dict[str, str], template_id: int | None) -> str:
    values = {"form": form, "errors": errors, "priorities": list(Priority), "template_id": template_id}
    return render_page("console/broadcasts/template.html", **values)


def _get_template_or_404(template_id: int) -> MessageTemplate:
    return or_404(templates.get(template_id), "There is no such template.")


def _render_variables(template: MessageTemplate, values: dict[str, str], error: str | None) -> str:
    names = message_templates.list_variables(template.title, template.content)
    return render_page("console/broadcasts/use.html", kept=template, names=names, values=values, error=error)
