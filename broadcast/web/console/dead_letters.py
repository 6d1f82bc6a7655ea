"""Dead letters: what came from outside and could not become a broadcast, why, and what can be done about it."""

import base64
from datetime import datetime

from flask import Blueprint, redirect, request, url_for
from flask.typing import ResponseReturnValue

from broadcast.actions import dead_letters as actions
from broadcast.actions.inbound_batch import Ready, compose
from broadcast.base.errors import Invalid, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.inbound import VALUE_BYTES, Publish, Rejected
from broadcast.domain.permissions import Permission
from broadcast.ingest import redrive
from broadcast.store import dead_letters, system_identity
from broadcast.store.models.ingest import DeadLetter, LetterStatus
from broadcast.web.console.broadcasts import review
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import CardView, is_htmx, page
from broadcast.web.core.resumable_forms import resumable

blueprint = Blueprint("dead_letters", __name__)

PAGE = 30


@blueprint.get("/dead-letters")
@allow(Permission.OPERATE)
def listing():
    status, after = request.args.get("status", LetterStatus.WAITING.value), request.args.get("after", "")
    status = status if status in set(LetterStatus) else LetterStatus.WAITING.value
    before = int(after) if after.isascii() and after.isdigit() and len(after) < 19 else None
    found = dead_letters.page(LetterStatus(status), before=before, limit=PAGE + 1, whole=False)
    next = str(found[PAGE - 1].id) if len(found) > PAGE else None
    values = {"letters": found[:PAGE], "next": next, "status": status}
    if is_htmx() and before:
        return page("console/dead_letters/_rows.html", **values)
    values |= {"counts": dead_letters.counts(), "through": dead_letters.newest_id(), "told": _told_of_all()}
    return page("console/dead_letters/list.html", **values)


@blueprint.get("/dead-letters/<int:letter_id>")
@allow(Permission.OPERATE)
def one(letter_id: int):
    letter = found(letter_id)
    return _page(letter, typed=shown(letter.value))


@blueprint.post("/dead-letters/<int:letter_id>/redrive")
@resumable
@allow(Permission.OPERATE)
def again(letter_id: int):
    """Redrive a letter, with its value as it was typed; with `check` only show what would come of it."""
    letter, now = found(letter_id), clock.now()
    typed = request.form.get("value", "").replace("\r\n", "\n")
    if request.form.get("resume"):
        return _page(letter, typed=typed)
    value = None if typed == shown(letter.value) else typed.encode("utf-8", "surrogatepass")
    if "check" in request.form:
        return _page(letter, typed=typed, ready=redrive.rehearse(letter, value, now=now))
    outcome = redrive.redrive(letter, value, by=me().actor, now=now, confirmed=review.given(request.form))
    if outcome.rejected is not None:
        return _page(found(letter_id), typed=typed, error=outcome.rejected.reason), 422
    return redirect(url_for("console.dead_letters.one", letter_id=letter_id), 303)


@blueprint.post("/dead-letters/<int:letter_id>/purge")
@allow(Permission.OPERATE)
def purge(letter_id: int):
    actions.purge(letter_id, by=me().actor, now=clock.now())
    return redirect(url_for("console.dead_letters.listing"), 303)


@blueprint.post("/dead-letters/redrive")
@allow(Permission.OPERATE)
def redrive_all():
    """All that were waiting when the page was made, some hundred at a time; tells how many went out and how many did not."""
    how = redrive.redrive_all(through=_through(), by=me().actor, now=clock.now())
    told = {"done": how.done, "rejected": how.rejected, "left": how.left, "unconfirmed": how.unconfirmed}
    return redirect(url_for("console.dead_letters.listing", **told), 303)


@blueprint.post("/dead-letters/purge")
@allow(Permission.OPERATE)
def purge_all():
    count = actions.purge_all(through=_through(), by=me().actor, now=clock.now())
    return redirect(url_for("console.dead_letters.listing", purged=count), 303)


def found(letter_id: int) -> DeadLetter:
    """Raises NotFound."""
    letter = dead_letters.by_id(letter_id) if letter_id < 2**63 else None
    if letter is None:
        raise NotFound("There is no such dead letter.")
    return letter


def shown(value: bytes | None) -> str:
    """A value as a page can hold it: what no text can be, or no form would give back, is a replacement character."""
    text = (value or b"").decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in "\n\t" or ord(c) >= 32 else "�" for c in text).removeprefix("\ufeff")


def rehearsed(ready: Ready, by: Actor, now: datetime) -> CardView | None:
    """The card that people would get; None for what is no new broadcast."""
    if not isinstance(ready.arrival.reading, Publish):
        return None
    row = compose(ready, by=by, now=now)
    row.id, row.published_at = 0, now
    return CardView(row.as_card(), seq=0, is_read=False)


def _page(
    letter: DeadLetter, *, typed: str, ready: Ready | None = None, error: str | None = None
) -> ResponseReturnValue:
    reading = ready and ready.arrival.reading
    return page(
        "console/dead_letters/detail.html",
        letter=letter,
        arrived_at=letter.created_at,
        headers=[(name, shown(base64.b64decode(value))) for name, value in letter.headers],
        key=shown(letter.key) if letter.key else None,
        typed=typed,
        group=SETTINGS.current.kafka_group_id or system_identity.kafka_group(),
        is_cut=letter.size > VALUE_BYTES,
        error=reading.reason if isinstance(reading, Rejected) else error,
        card=rehearsed(ready, me().actor, clock.now()) if ready else None,
        reach=ready.reach if ready else None,
        is_fit=ready is not None and not isinstance(reading, Rejected),
    )


def _through() -> int:
    through = request.form.get("through", "")
    if not (through.isascii() and through.isdigit() and len(through) < 19):
        raise Invalid({"through": "Which letters are meant must be told: load the page anew."})
    return int(through)


def _told_of_all() -> dict[str, int] | None:
    """What the redrive or purge of all said on its way here."""
    numbers = {name: request.args.get(name, "") for name in ("done", "rejected", "left", "unconfirmed", "purged")}
    told = {name: int(text) for name, text in numbers.items() if text.isascii() and text.isdigit() and len(text) < 10}
    return told or None
