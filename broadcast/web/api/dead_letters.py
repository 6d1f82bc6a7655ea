"""The JSON API for dead letters: list, redrive one or all, correct, purge."""

import base64
from dataclasses import asdict
from typing import Any

from flask import Blueprint, jsonify, request

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.ingest import dead_letters as actions
from broadcast.store import dead_letters
from broadcast.store.models.ingest import DeadLetter, DeadLetterStatus
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_letter_or_404
from broadcast.web.core.request_parsing import pop_confirmation, read_json_object, read_paging, require_number

blueprint = Blueprint("dlt", __name__, url_prefix="/api/admin/dlt")


@blueprint.get("")
@allow(Permission.OPERATE)
def listing():
    """Newest first; `?status=WAITING|REDRIVEN|PURGED`, WAITING without it."""
    status = request.args.get("status", DeadLetterStatus.WAITING.value)
    if status not in set(DeadLetterStatus):
        raise Invalid({"status": f"status must be one of {', '.join(DeadLetterStatus)}."})
    before, limit = read_paging()
    letters = dead_letters.list_page(DeadLetterStatus(status), before=before, limit=limit + 1)
    items = [_to_json(letter) for letter in letters[:limit]]
    return jsonify(
        items=items, next=str(items[-1]["id"]) if len(letters) > limit else None, counts=dead_letters.count_by_status()
    )


@blueprint.get("/<int:letter_id>")
@allow(Permission.OPERATE)
def detail(letter_id: int):
    return jsonify(_to_json(get_letter_or_404(letter_id)))


@blueprint.post("/<int:letter_id>/redrive")
@allow(Permission.OPERATE)
def redrive_one(letter_id: int):
    """Redrive one; `{value: "…"}` hands in that text instead of what came. 422 with the reason when it is still wrong."""
    letter, body = get_letter_or_404(letter_id), read_json_object(may_be_empty=True)
    value, confirmed = body.get("value"), pop_confirmation(body)
    if body.keys() - {"value"} or not isinstance(value, str | None):
        raise Invalid({"value": "Send {value: text}, or nothing to redrive the original event."})
    encoded_value = None if value is None else value.encode("utf-8", "surrogatepass")
    outcome = actions.redrive(letter, encoded_value, by=current_identity().actor, now=clock.now(), confirmed=confirmed)
    if outcome.rejection is not None:
        raise Invalid({outcome.rejection.code: outcome.rejection.reason})
    return jsonify(outcome=outcome.kind, broadcastId=outcome.broadcast_id)


@blueprint.post("/redrive")
@allow(Permission.OPERATE)
def redrive_all():
    """Redrive what waits, oldest first, some hundred at a time: `{done, rejected, left}`; call again while `left`.

    With a session, those that somebody must confirm stay behind: they are `unconfirmed`.
    """
    result = actions.redrive_all(through=dead_letters.get_newest_id(), by=current_identity().actor, now=clock.now())
    return jsonify(asdict(result))


@blueprint.delete("/<int:letter_id>")
@allow(Permission.OPERATE)
def purge(letter_id: int):
    actions.purge(get_letter_or_404(letter_id).id, by=current_identity().actor, now=clock.now())
    return "", 204


@blueprint.delete("")
@allow(Permission.OPERATE)
def purge_all():
    """Purge all that wait, or with `?through=` those up to that id."""
    text = request.args.get("through")
    through = dead_letters.get_newest_id() if text is None else require_number(text, "through")
    return jsonify(purged=actions.purge_all(through=through, by=current_identity().actor, now=clock.now()))


def _to_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "status": letter.status,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "lastOffset": letter.last_offset,
        "timestamp": letter.timestamp_ms,
        "key": _encode_base64(letter.key),
        "value": _encode_base64(letter.value),
        "size": letter.size,
        "headers": [{"name": name, "value": value} for name, value in letter.headers],
        "code": letter.code,
        "reason": letter.reason,
        "source": letter.source,
        "sourceId": letter.source_id,
        "createdAt": clock.to_rfc3339(letter.created_at),
        "tries": letter.tries,
        "triedAt": clock.to_rfc3339(letter.tried_at),
        "broadcastId": letter.broadcast_id,
    }


def _encode_base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
