"""What views answer with: pages and redirects; template filters, icons, and cards with the viewer's receipt."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache, partial
from gettext import NullTranslations
from typing import Any

from flask import Flask, current_app, flash, g, redirect, request, url_for
from flask_wtf.csrf import generate_csrf
from jinja2 import Environment, StrictUndefined, nodes, pass_eval_context
from jinja2.compiler import CodeGenerator
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response

from broadcast.base.errors import TemporarilyUnavailable
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.card import Card
from broadcast.domain.events import Event
from broadcast.domain.preferences import Preferences
from broadcast.store import users
from broadcast.store.database import db
from broadcast.store.inbox import Inbox, InboxItem, UnreadCount
from broadcast.streams import sse

_MAX_SHARED_CARDS = 500  # rendered, of 8 KB as a rule


class CardView:
    """A Card for the template: its HTML marked as safe (nh3 sanitized it), with the viewer's receipt.

    Without `item`, as in the stream, which is rendered once for all viewers: no receipt, and `is_read` as given.
    """

    def __init__(self, card: Card, *, seq: int, is_read: bool = False, item: InboxItem | None = None):
        self.card, self.seq = card, seq
        self.is_read = item.is_read if item else is_read
        self.is_back = item is not None and item.is_back
        self.acked_at = item.acked_at if item and item.is_acknowledged else None
        self.earlier_acked_at = item.acked_at if item and not item.is_acknowledged else None
        self.is_corrected = bool(self.acked_at and (item.acked_revision or card.revision) < card.revision)
        self.archived_at = item and item.archived_at
        self.snoozed_until = item and item.snoozed_until
        self.ended_at = item and item.ended_at
        self.content_html = Markup(card.content_html)

    def __getattr__(self, name: str):
        return getattr(self.card, name)


def to_card_view(item: InboxItem) -> CardView:
    return CardView(item.card, seq=item.seq, item=item)


def make_html_encoder(app: Flask):
    """The HTML encoder for the hub: the card partial of the pages, without anything that differs between viewers."""

    def encode(event: Event) -> bytes:
        payload = event.payload  # an update also has the position in the inbox, and whether it alerts again
        if "title" not in payload:  # no card, for example a removal
            return sse.encode_event_json(event)
        card = CardView(Card.from_payload(payload), seq=payload.get("seq", event.seq))
        template = app.jinja_env.get_template("inbox/_card.html")
        flags = {"again": payload.get("again", False), "reminder": bool(payload.get("reminder"))}
        html = template.render(card=card, form_token=None, now=clock.now(), **flags)
        return sse.encode_frame(event.type.value, html, id=str(event.cursor))

    return encode


def is_htmx() -> bool:
    return request.headers.get("HX-Request") == "true"


def render_page(template: str, **values) -> bytes:
    """Render a page or fragment for a request: its forms carry the CSRF token.

    Encoded in parts: one character beyond ASCII makes encoding all that is in one string seventy times slower.
    """
    context = {"form_token": True, "csrf_token": cache(_build_csrf_token)} | values
    current_app.update_template_context(context)
    return b"".join(map(str.encode, current_app.jinja_env.get_template(template).generate(context)))


def _build_csrf_token() -> str:
    """Empty for a program with a token: it needs none, and would only get a session cookie for it."""
    identity = g.get("identity")
    return "" if identity is not None and identity.session_id is None else generate_csrf()


def redirect_to(endpoint: str, notice: str = "", **values: Any) -> Response:
    """Redirect with 303 after a form was handled. The page shows `notice`, once."""
    if notice:
        flash(notice)
    return redirect(url_for(endpoint, **values), 303)


def init_app(app: Flask, settings: Settings) -> None:
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    translate_constant = _install_translations(app.jinja_env)
    filters = {
        "when": format_relative_time,
        "o_clock": format_clock_time,
        "exactly": format_exact_time,
        "thousands": format_number,
        "people": format_people_count,
        "badge": format_badge,
        "percent": format_percent,
        "span": format_duration,
    }
    app.jinja_env.filters.update(filters)
    icon, render_once = _make_icon_renderer(app), _make_constant_renderer(app)
    constants = {"_": translate_constant, "gettext": translate_constant, "icon": icon, "render_once": render_once}
    app.jinja_env.code_generator_class = partial(_FoldingCodeGenerator, constants)
    app.jinja_env.globals.update(
        icon=icon, render_cards=_make_cards_renderer(app), render_once=render_once, app_name=settings.app_name
    )
    app.context_processor(_build_template_context)


class _FoldingCodeGenerator(CodeGenerator):
    """Jinja2's compiler, which also folds calls of `functions` with constant arguments, as it folds constant filters.

    So a sentence, an icon or a part of a page that never changes is text of the compiled template. Half of a page was
    spent on calling these again.
    """

    def __init__(self, functions: Mapping[str, Callable[..., str]], *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._folder = _ConstantFolder(functions)

    def visit_Template(self, node: nodes.Template, frame: Any = None) -> None:  # noqa: N802 - Jinja2 looks for it
        super().visit_Template(self._folder.visit(node), frame)


class _ConstantFolder(NodeTransformer):
    def __init__(self, functions: Mapping[str, Callable[..., str]]):
        self._functions = functions

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        return node  # Jinja2 would join what is constant into text that is then escaped

    def visit_Call(self, node: nodes.Call) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        has_only_constants = not node.kwargs and all(isinstance(argument, nodes.Const) for argument in node.args)
        if not has_only_constants or not isinstance(node.node, nodes.Name) or node.node.name not in self._functions:
            return node
        text = self._functions[node.node.name](*(argument.value for argument in node.args))
        return nodes.MarkSafeIfAutoescape(nodes.Const(str(text)), lineno=node.lineno, environment=node.environment)


def _install_translations(env: Environment) -> Callable[[str], str]:
    """Install `_()`, `ngettext()` and `{% trans %}`; return the function for texts without variables.

    The templates are in English, and nothing translates them yet. Each language needs an environment of its own, as
    such texts are compiled into the templates.
    """
    env.add_extension("jinja2.ext.i18n")
    env.policies["ext.i18n.trimmed"] = True
    translations = NullTranslations()
    env.install_gettext_translations(translations, newstyle=True)

    @pass_eval_context
    def gettext(eval_context: nodes.EvalContext, text: str, /, **variables) -> str:
        translated = translations.gettext(text)
        if not eval_context.autoescape:
            return translated % variables
        return Markup(translated % {name: escape(value) for name, value in variables.items()})

    env.globals.update(gettext=gettext, _=gettext)  # as Jinja2's own, at half the cost
    return lambda text: translations.gettext(text) % {}  # `%%` is `%`


def _build_template_context() -> dict:
    identity = getattr(g, "identity", None)
    now = clock.now()
    values = {"viewer": identity, "now": now, "preferences": Preferences()}
    if identity is not None:
        try:
            values["preferences"] = users.get_preferences(identity.id)
            values["unread"] = g.get("unread") or Inbox(identity.actor.viewer, now=now).count_unread()
        except (SQLAlchemyError, TemporarilyUnavailable):  # the error page needs the values too
            db.session.rollback()
            values["unread"] = UnreadCount(0, 0)
    return values


def _make_cards_renderer(app: Flask) -> Callable[..., Iterator[Markup]]:
    """`render_cards(items, return_path)` of templates: cards of a list, whose forms lead back to `return_path`.

    A card of which the user has done nothing but read it is rendered once in a minute for all users (its times are
    relative), and split at the mark where the hidden fields of each user's forms belong. The mark is random, so that no
    text names it.
    """
    mark = secrets.token_hex(16)

    def render(card: CardView) -> list[str]:
        template = app.jinja_env.get_template("inbox/_card.html")
        return template.render(card=card, form_token=True, hidden_fields=mark, now=clock.now()).split(mark)

    @lru_cache(_MAX_SHARED_CARDS)
    def render_shared(card: Card, seq: int, is_read: bool, _minute: int) -> list[str]:
        return render(CardView(card, seq=seq, is_read=is_read))

    def render_cards(items: Iterable[InboxItem], return_path: str | None = None) -> Iterator[Markup]:
        fields = app.jinja_env.get_template("inbox/_hidden_fields.html")
        hidden_fields = fields.render(token=_build_csrf_token(), here=return_path)
        minute = int(clock.now().timestamp() // 60)
        for item in items:
            is_shared = _is_shared(item)
            parts = (
                render_shared(item.card, item.seq, item.is_read, minute) if is_shared else render(to_card_view(item))
            )
            yield Markup(hidden_fields.join(parts))

    return render_cards


def _is_shared(item: InboxItem) -> bool:
    """Whether its card looks the same to everybody who has read it, or has not."""
    return not (item.is_back or item.acked_at or item.archived_at or item.snoozed_until or item.ended_at)


def _make_icon_renderer(app: Flask) -> Callable[..., Markup]:
    @cache
    def icon(name: str, label: str | None = None) -> Markup:
        return app.jinja_env.get_template("core/_icons.html").module.icon(name, label)  # called seven times per card

    return icon


def _make_constant_renderer(app: Flask) -> Callable[[str], Markup]:
    @cache
    def render_once(template: str) -> Markup:
        """A part of a page that depends on nothing: the two of the inbox took a quarter of it."""
        return Markup(app.jinja_env.get_template(template).render())

    return render_once


def format_relative_time(moment: datetime | None) -> Markup:
    """A `<time>` element: how long ago, or the moment itself if it lies ahead."""
    if moment is None:
        return Markup("")
    ago, exact = clock.now() - moment, _format_date_and_time(moment)
    return _render_time(moment, exact, exact if ago < timedelta(seconds=-30) else _format_ago(ago, exact))


def format_clock_time(moment: datetime) -> Markup:
    """A `<time>` element with the time of day, and the date unless it is today; page.js converts it to local time."""
    local = moment.astimezone(UTC)
    text = local.strftime("%H:%M" if local.date() == clock.now().date() else "%-d %b, %H:%M")
    return _render_time(moment, _format_date_and_time(moment), text, " data-clock")


def format_exact_time(moment: datetime) -> Markup:
    """A `<time>` element with the exact moment, however long ago; page.js converts it to local time."""
    exact = _format_date_and_time(moment)
    return _render_time(moment, exact, exact, " data-exact")


def _render_time(moment: datetime, exact: str, text: str, attribute: str = "") -> Markup:
    # not Markup.format, which takes a seventh of the time of a card: nobody has typed any of this
    return Markup(f'<time datetime="{clock.to_rfc3339(moment)}" title="{exact}"{attribute}>{text}</time>')


def _format_date_and_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%a %-d %b %Y, %H:%M UTC")


def _format_ago(ago: timedelta, exact: str) -> str:
    minutes = int(ago.total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 24 * 60:
        return f"{minutes // 60} h ago"
    if minutes < 7 * 24 * 60:
        days = minutes // (24 * 60)
        return f"{days} day{'s' if days > 1 else ''} ago"
    return exact


def format_duration(duration: timedelta | None) -> str:
    """A duration in one unit, or two for hours: "45 s", "3 min", "2 h 10 min", "4 days"."""
    if duration is None:
        return "–"
    seconds = int(duration.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    hours, minutes = divmod(seconds // 60, 60)
    if hours < 24:
        return f"{hours} h" + (f" {minutes} min" if minutes and hours < 10 else "")
    return f"{hours // 24} day{'s' if hours >= 48 else ''}"


def format_number(number: int) -> str:
    return f"{number:,}"


def format_people_count(count: int) -> str:
    return "1 person" if count == 1 else f"{count:,} people"


def format_badge(number: int) -> str:
    return "99+" if number > 99 else str(number)


def format_percent(share: float) -> str:
    return f"{share * 100:.0f} %"
