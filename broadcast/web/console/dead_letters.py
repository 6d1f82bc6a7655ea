"""Dead letters: inbound events that were rejected, why, and what can be done."""

import base64
from dataclasses import asdict
from datetime import datetime

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from broadcast.actions.inbound_batch import PreparedInboundEvent, build_broadcast_row
from broadcast.base.numbers import parse_number
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.inbound import MAX_VALUE_BYTES, PublishCommand, Rejection
from broadcast.domain.permissions import Permission
from broadcast.ingest import dead_letters as actions
from broadcast.store import dead_letters, system_identity
from broadcast.store.models.ingest import DeadLetter, DeadLetterStatus
from broadcast.web.console.broadcasts import review
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_letter_or_404
from broadcast.web.core.rendering import CardView, is_htmx, redirect_to, render_page
from broadcast.web.core.request_parsing import read_known, require_number

blueprint = Blueprint("dead_letters", __name__)

PAGE_SIZE = 30


@blueprint.get("/dead-letters")
@allow(Permission.OPERATE)
def listing():
    status = read_known(request.args, "status", set(DeadLetterStatus), DeadLetterStatus.WAITING.value)
    before = parse_number(request.args.get("after"))
    fetched = dead_letters.list_page(
        DeadLetterStatus(status), before=before, limit=PAGE_SIZE + 1, should_load_payload=False
    )
    next_cursor = str(fetched[PAGE_SIZE - 1].id) if len(fetched) > PAGE_SIZE else None
    values = {"letters": fetched[:PAGE_SIZE], "next": next_cursor, "status": status}
    if is_htmx() and before:
        return render_page("console/dead_letters/_rows.html", **values)
    values |= {
        "counts": dead_letters.count_by_status(),
        "through": dead_letters.get_newest_id(),
        "told": _read_bulk_result(),
    }
    return render_page("console/dead_letters/list.html", **values)


@blueprint.get("/dead-letters/<int:letter_id>")
@allow(Permission.OPERATE)
def detail(letter_id: int):
    letter = get_letter_or_404(letter_id)
    return _render_letter(letter, typed=decode_for_display(letter.value))


@blueprint.post("/dead-letters/<int:letter_id>/redrive")
@allow(Permission.OPERATE, is_resumable=True)
def redrive_one(letter_id: int):
    """Redrive a letter with the value as typed. With `check`, only preview the result."""
    letter, now = get_letter_or_404(letter_id), clock.now()
    typed = request.form.get("value", "").replace("\r\n", "\n")
    if request.form.get("resume"):
        return _render_letter(letter, typed=typed)
    value = None if typed == decode_for_display(letter.value) else typed.encode("utf-8", "surrogatepass")
    if "check" in request.form:
        return _render_letter(letter, typed=typed, ready=actions.preview_redrive(letter, value, now=now))
    by, confirmed = current_identity().actor, review.read_confirmation(request.form)
    outcome = actions.redrive(letter, value, by=by, now=now, confirmed=confirmed)
    if outcome.rejection is not None:
        return _render_letter(get_letter_or_404(letter_id), typed=typed, error=outcome.rejection.reason), 422
    return redirect_to("console.dead_letters.detail", letter_id=letter_id)


@blueprint.post("/dead-letters/<int:letter_id>/purge")
@allow(Permission.OPERATE)
def purge(letter_id: int):
    actions.purge(letter_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.dead_letters.listing")


@blueprint.post("/dead-letters/redrive")
@allow(Permission.OPERATE)
def redrive_all():
    """Redrive the letters that waited when the page was rendered, some hundred at a time; report the results."""
    result = actions.redrive_all(through=_read_through_id(), by=current_identity().actor, now=clock.now())
    return redirect_to("console.dead_letters.listing", **asdict(result))


@blueprint.post("/dead-letters/purge")
@allow(Permission.OPERATE)
def purge_all():
    count = actions.purge_all(through=_read_through_id(), by=current_identity().actor, now=clock.now())
    return redirect_to("console.dead_letters.listing", purged=count)


def decode_for_display(value: bytes | None) -> str:
    """A value as text for a form. What is not text, or would not survive a form, becomes a replacement character."""
    text = (value or b"").decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in "\n\t" or ord(c) >= 32 else "�" for c in text).removeprefix("\ufeff")


def build_preview_card(ready: PreparedInboundEvent, by: Actor, now: datetime) -> CardView | None:
    """The card that recipients would get; None if no new broadcast would be created."""
    if not isinstance(ready.inbound_event.command, PublishCommand):
        return None
    row = build_broadcast_row(ready, by=by, now=now)
    row.id, row.published_at = 0, now
    return CardView(row.to_card(), seq=0, is_read=False)


def _render_letter(
    letter: DeadLetter, *, typed: str, ready: PreparedInboundEvent | None = None, error: str | None = None
) -> ResponseReturnValue:
    command = ready and ready.inbound_event.command
    return render_page(
        "console/dead_letters/detail.html",
        letter=letter,
        headers=[(name, decode_for_display(base64.b64decode(value))) for name, value in letter.headers],
        key=decode_for_display(letter.key) if letter.key else None,
        typed=typed,
        group=SETTINGS.current.kafka_group_id or system_identity.get_kafka_group(),
        is_cut=letter.size > MAX_VALUE_BYTES,
        error=command.reason if isinstance(command, Rejection) else error,
        card=build_preview_card(ready, current_identity().actor, clock.now()) if ready else None,
        reach=ready.recipient_count if ready else None,
        is_fit=ready is not None and not isinstance(command, Rejection),
    )


def _read_through_id() -> int:
    problem = "The request does not say which dead letters. Refresh the page and try again."
    return require_number(request.form.get("through"), "through", problem)


def _read_bulk_result() -> dict[str, int] | None:
    """The result of the bulk redrive or purge that redirected here."""
    names = ("done", "rejected", "left", "unconfirmed", "purged")
    numbers = {name: parse_number(request.args.get(name), max_digits=9) for name in names}
    return {name: number for name, number in numbers.items() if number is not None} or None
