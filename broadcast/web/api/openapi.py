"""`/api/openapi.json`: the JSON interface described for programs (OpenAPI 3.1). A test compares it with the routes.

Written by hand, as tables: what may be sent is checked by `domain` and `web.asked`, which answer with sentences for people.
"""

from typing import Any

from flask import Blueprint, Response, jsonify

from broadcast.config.settings import SETTINGS
from broadcast.domain import message
from broadcast.domain.message import Match, Priority, TargetType
from broadcast.domain.overdue_schedules import Reason
from broadcast.store import broadcasts, inbox
from broadcast.web.core.identity import allow
from broadcast.web.core.request_parsing import MOST

Schema = dict[str, Any]
blueprint = Blueprint("openapi", __name__, url_prefix="/api")


@blueprint.get("/openapi.json")
@allow("anyone")
def described() -> Response:
    return jsonify(document(SETTINGS.current.app_name))


def document(name: str) -> Schema:
    """The whole description of the system called `name`."""
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{name} API", "version": "1", "description": _ABOUT},
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": _PATHS,
        "components": {
            "schemas": _SCHEMAS,
            "responses": {"Problem": _answer("An error, in words for people.", _ref("Problem"), "application/problem+json")},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "broadcast"},
            },
        },
    }  # fmt: skip


_ABOUT = (
    "Errors are application/problem+json (RFC 9457). After 503 nothing was done: send it again. After 504 it may be "
    "done or not: send it again with the same `Idempotency-Key`, or, where there is none, look first. "
    "Lists are `{items, next}`; `next` is `after` of the next page. "
    "With a session (not with a token), what reaches many people or interrupts everybody must be confirmed: the answer is 422, "
    "with `confirm: {people, password}`, how many people it reaches and whether the password is needed. Send the request once "
    "more with `confirm: {people: that number, password: …}`."
)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str = "", *, closed: bool = False, **properties: Schema) -> Schema:
    schema = {"type": "object", "properties": properties, "required": required.split()}
    return schema | ({"additionalProperties": False} if closed else {})


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items} | more


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _text(most: int | None = None, least: int = 0) -> Schema:
    limits = {"minLength": least} | ({"maxLength": most} if most else {})
    return {"type": "string"} | {name: value for name, value in limits.items() if value}


_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_ID = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
_TIME = {"type": "string", "format": "date-time"}
_FREE = {"type": "object"}
_IDS = _object("broadcastIds", closed=True, broadcastIds=_list(_ID, minItems=1, maxItems=1000))
_UNREAD = _object("unread", unread=_COUNT)
_STEPS = ("delivered", "seen", "read", "acknowledged")
_OR_KEPT_BACK = "Null where figures of persons are not told; then the others are lower bounds in groups of `roundedTo`"
_TARGET = {
    "targetType": {"enum": [kind.value for kind in TargetType]},
    "targetIds": _or_null(_list({"type": ["string", "integer"]}, maxItems=message.MOST_TARGETS)),
    "targetMatch": {"enum": [*(match.value for match in Match), None]},
    "exceptRoles": _or_null(_list({"type": ["string", "integer"]}, maxItems=message.MOST_TARGETS)),
    "exceptIds": _or_null(_list({"type": ["string", "integer"]}, maxItems=message.MOST_TARGETS)),
    "snapshot": _or_null(_FLAG),
}
_FIELDS = {
    "title": _text(message.TITLE_CHARACTERS, 1),
    "content": _text(message.CONTENT_BYTES, 1),
    "priority": {"enum": [*(priority.value for priority in Priority), None]},
    "category": _or_null(_text(message.CATEGORY_CHARACTERS)),
    "scheduledAt": _or_null(_TIME),
    "expiresAt": _or_null(_TIME),
    "requiresAck": _or_null(_FLAG),
    "ackDueAt": _or_null(_TIME),
    "actions": _or_null(_list(_ref("Link"), maxItems=message.MOST_ACTIONS)),
}
_CARD = {"id": _ID, **_FIELDS, "revision": _COUNT, "contentHtml": _text(), "senderName": _text(), "createdAt": _TIME}
_CARD |= {"publishedAt": _or_null(_TIME), "editedAt": _or_null(_TIME), "why": _text()}
_CARD |= {
    "ackRevision": {
        "type": "integer",
        "minimum": 1,
        "description": "Acknowledgements of earlier revisions do not stand",
    }
}
_CARD |= {"times": {"type": "integer", "minimum": 1}, "repeatedAt": _or_null(_TIME), "fromSource": _FLAG}
_DRAFT = _FIELDS | _TARGET | {"draft": _or_null(_FLAG)}
_CONFIRM = _or_null(
    _object(closed=True, people=_or_null(_COUNT), password=_text())
    | {
        "description": "Only asked of a session: what a 422 with `confirm` names, to send the same request once more with."
    }
)
_STANDING = {"status": _text(), "seq": _or_null(_ID), "stats": _ref("Stats"), "receiptsDeletedAt": _or_null(_TIME)}
_STANDING["decisionReason"] = {"enum": [*(reason.value for reason in Reason), None]} | {
    "description": "Why a plan is not sent by itself any more: it waits until somebody sends, edits or recalls it."
}
_ACKNOWLEDGED = dict.fromkeys(("acknowledgedAt", "earlierAcknowledgedAt"), _or_null(_TIME))
_ACKNOWLEDGED |= dict.fromkeys(("acknowledgedRevision", "earlierAcknowledgedRevision"), _or_null(_COUNT))
_SCHEMAS: dict[str, Schema] = {
    "Problem": _object("type title status detail", type=_text(), title=_text(), status=_COUNT, detail=_text(), fields=_FREE),
    "Link": _object("label url", closed=True, label=_text(message.LABEL_CHARACTERS, 1), url=_text(message.URL_CHARACTERS)),
    "Draft": _object("title content targetType", closed=True, **_DRAFT),
    "Card": _object("id title content contentHtml priority", **_CARD),
    "Message": {"allOf": [_ref("Card"), _object("read", read=_FLAG, endedAt=_or_null(_TIME), **_ACKNOWLEDGED)]},
    "Stats": _object(
        "targeted rates",
        targeted=_COUNT,
        rates=_FREE,
        **dict.fromkeys((*_STEPS, "missing"), _or_null(_COUNT) | {"description": _OR_KEPT_BACK}),
        noLongerHere=_COUNT | {"description": "Of the targeted, disabled or no longer in the audience"},
        sentTo=_or_null(_COUNT) | {"description": "People at the moment of sending"},
        wouldReach=_or_null(_COUNT) | {"description": "Of what was never sent; null once it was"},
        roundedTo=_COUNT,
    ),
    "Delivery": _object(
        "userId username name",
        userId=_ID,
        username=_text(),
        name=_text(),
        **dict.fromkeys(("deliveredAt", "seenAt", "readAt", "acknowledgedAt"), _or_null(_TIME)),
        acknowledgedRevision=_or_null(_COUNT),
        acknowledgedHash=_or_null(_text()),
        earlierAcknowledgements=_list(_object("at", at=_TIME, revision=_or_null(_COUNT), hash=_or_null(_text()))),
        noLongerHere=_or_null(_text()),
    ),
    "Broadcast": {"allOf": [_ref("Card"), _object("status stats", **_STANDING)]},
    "Preferences": _FREE,
    "Event": _FREE | {"description": "A CloudEvent, structured; see docs/events.md."},
}  # fmt: skip


def _answer(description: str, schema: Schema | None = None, kind: str = "application/json") -> Schema:
    return {"description": description} | ({"content": {kind: {"schema": schema}}} if schema else {})


def _asked(name: str, schema: Schema, place: str = "query", *, required: bool = False) -> Schema:
    return {"name": name, "in": place, "schema": schema, "required": required or place == "path"}


def _does(
    summary: str, *asked: Schema, body: Schema | None = None, may_be_empty: bool = False, **answers: Schema | None
) -> Schema:
    """One operation; `answers` by status, `_200=…`. Any other status is a Problem."""
    told = {status.removeprefix("_"): _answer("Done.", schema) for status, schema in answers.items()}
    operation = {"summary": summary, "parameters": list(asked), "responses": told}
    operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    if body is not None:
        operation["requestBody"] = {"required": not may_be_empty, "content": {"application/json": {"schema": body}}}
    return operation


def _stream(summary: str, *asked: Schema) -> Schema:
    operation = _does(summary, *asked)
    operation["responses"]["200"] = _answer("Server-sent events.", _text(), "text/event-stream")
    return operation


def _page_of(schema: Schema, **more: Schema) -> Schema:
    return _object("items next", items=_list(schema), next=_or_null(_text()), **more)


_AFTER = _asked("after", {"type": "string", "pattern": "^[0-9]{1,18}$"})
_LIMIT = _asked("limit", {"type": "integer", "minimum": 1, "maximum": MOST})
_THIS = _asked("broadcast_id", _ID, "path")
_KEY = _asked("Idempotency-Key", {"type": "string", "pattern": "^[ -~]{1,200}$"}, "header")
_VERSION = _asked("If-Match", _text(), "header", required=True)
_TAGS = [_asked("category", _text()), _asked("priority", _text()), _asked("q", _text())]
_LETTER = _asked("letter_id", _ID, "path")
_VALUE = _object(closed=True, value=_or_null(_text()), confirm=_CONFIRM)
_REASON = _object(closed=True, reason=_text(500, 1))

_ASKS_AGAIN = _FLAG | {
    "default": False,
    "description": "Of a live broadcast: true asks everybody for the acknowledgement anew and shows it again; false is a "
    "correction, after which acknowledgements stand",
}

_PATHS: dict[str, Schema] = {
    "/api/openapi.json": {"get": _does("This description", _200=_FREE) | {"security": []}},
    "/api/sse/connect": {
        "get": _stream(
            "The stream of your messages",
            _asked("after", _text()),
            _asked("Last-Event-ID", _text(), "header"),
            _asked("userId", _ID),
            _asked("connectionId", _text()),
        )
    },
    "/api/sse/disconnect": {"post": _does("Close one of your streams", _asked("connectionId", _text()), _204=None)},
    "/api/sse/stats": {"get": _does("Open streams of all workers (admin)", _200=_FREE)},
    "/api/sse/connected/{user_id}": {
        "get": _does(
            "Whether somebody has a stream open", _asked("user_id", _COUNT, "path"), _200=_object(connected=_FLAG)
        )
    },
    "/api/sse/read": {"post": _does("Mark one message read", _asked("messageId", _ID, required=True), _200=_UNREAD)},
    "/api/user/messages": {
        "get": _does(
            "Your inbox, newest first",
            _asked("view", {"enum": list(inbox.VIEWS)}),
            *_TAGS,
            _AFTER,
            _LIMIT,
            _200=_page_of(_ref("Message"), unread=_COUNT, asOf=_COUNT, cursor=_text(), userId=_ID),
        )
    },
    **{
        f"/api/user/messages/{verb}": {"post": _does(f"To {verb} messages", body=_IDS, _200=_UNREAD)}
        for verb in ("read", "unread", "archive", "unarchive", "dismiss")
    },
    "/api/user/alerts": {
        "get": _does(
            "Messages that interrupt you when you come, the most urgent first",
            _200=_object(items=_list(_ref("Message"))),
        )
    },
    "/api/user/messages/acknowledge": {
        "post": _does(
            "To acknowledge messages, as of the `revisions` that were shown, by their ids; without, as of the present ones. "
            "What says something else by now is refused: alone with 409, of several it is named in `refused`",
            body=_object(
                "broadcastIds",
                closed=True,
                **_IDS["properties"],
                revisions=_or_null(_FREE | {"additionalProperties": _ID}),
            ),
            _200=_object("unread", unread=_COUNT, refused=_list(_ID)),
        )
    },
    "/api/user/messages/snooze": {
        "post": _does(
            "Hide messages until a time",
            body=_object("broadcastIds until", **_IDS["properties"], until=_TIME),
            _200=_object(
                "unread until timeZone untilLocal",
                unread=_COUNT,
                until=_TIME,
                timeZone=_text(),
                untilLocal=_TIME,
                left=_COUNT,
                because=_or_null(_text()),
            ),
        )
    },
    "/api/user/messages/read-all": {
        "post": _does(
            "Mark read what a filter shows",
            may_be_empty=True,
            body=_object(
                closed=True,
                view={"enum": [view for view in inbox.VIEWS if view != "ended"]},
                category=_text(),
                priority=_text(),
                q=_text(),
                through=_or_null(_COUNT),
            ),
            _200=_UNREAD,
        )
    },
    "/api/user/preferences": {
        "get": _does("When you want to be alerted", _200=_ref("Preferences")),
        "put": _does("Save that", body=_ref("Preferences"), _200=_ref("Preferences")),
    },
    "/api/admin/broadcasts": {
        "get": _does(
            "Broadcasts, newest first (admin)",
            _asked("filter", {"enum": list(broadcasts.FILTERS)}),
            _asked("q", _text()),
            _AFTER,
            _LIMIT,
            _200=_page_of(_ref("Broadcast")),
        ),
        "post": _does(
            "Publish, schedule or draft (admin)",
            _KEY,
            body=_object("title content targetType", closed=True, **_DRAFT, confirm=_CONFIRM),
            _200=_ref("Broadcast"),
            _201=_ref("Broadcast"),
        ),
    },
    "/api/admin/broadcasts/{broadcast_id}": {
        "get": _does(
            "One broadcast (admin)",
            _THIS,
            _asked("If-None-Match", _text(), "header"),
            _200=_ref("Broadcast"),
            _304=None,
        ),
        "patch": _does(
            "Edit (admin)",
            _THIS,
            _VERSION,
            body=_object(
                closed=True,
                **_FIELDS,
                **_TARGET,
                notifyAgain=_FLAG,
                acknowledgeAgain=_ASKS_AGAIN,
                confirm=_CONFIRM,
            ),
            _200=_ref("Broadcast"),
        ),
        "delete": _does("Recall (admin)", _THIS, _asked("reason", _text(500)), _200=_ref("Broadcast")),
    },
    "/api/admin/broadcasts/{broadcast_id}/cancel": {
        "post": _does("Recall (admin)", _THIS, body=_REASON, may_be_empty=True, _200=_ref("Broadcast"))
    },
    "/api/admin/broadcasts/{broadcast_id}/stats": {"get": _does("How far it came (admin)", _THIS, _200=_ref("Stats"))},
    "/api/admin/broadcasts/{broadcast_id}/deliveries": {
        "get": _does(
            "How far it came, person by person (admin)",
            _THIS,
            _asked("sort", _text()),
            _AFTER,
            _LIMIT,
            _200=_page_of(_ref("Delivery")),
        )
    },
    "/api/admin/broadcasts/{broadcast_id}/revisions": {
        "get": _does(
            "The texts that people acknowledged (admin)",
            _THIS,
            _200=_object(
                "ackRevision items",
                ackRevision=_COUNT,
                items=_list(
                    _object(
                        "revision hash title content actions",
                        revision=_COUNT,
                        hash=_text(),
                        title=_text(),
                        content=_text(),
                        actions=_list(_ref("Link")),
                    )
                ),
            ),
        )
    },
    "/api/admin/broadcasts/{broadcast_id}/remind": {
        "post": _does(
            "Show it again to those who have not read it (admin)",
            _THIS,
            _200=_object("reminded", reminded=_or_null(_COUNT)),
        )
    },
    "/api/admin/dlt": {
        "get": _does(
            "Events that could not be published (admin)",
            _asked("status", _text()),
            _AFTER,
            _LIMIT,
            _200=_page_of(_FREE),
        ),
        "delete": _does(
            "Purge all that wait (admin)", _asked("through", _COUNT), _200=_object("purged", purged=_COUNT)
        ),
    },
    "/api/admin/dlt/redrive": {"post": _does("Hand in again what waits (admin)", _200=_FREE)},
    "/api/admin/dlt/{letter_id}": {
        "get": _does("One of them (admin)", _LETTER, _200=_FREE),
        "delete": _does("Purge it (admin)", _LETTER, _204=None),
    },
    "/api/admin/dlt/{letter_id}/redrive": {
        "post": _does(
            "Hand it in again, as it came or as `value` (admin)", _LETTER, body=_VALUE, may_be_empty=True, _200=_FREE
        )
    },
    "/api/admin/audience/preview": {
        "post": _does(
            "Whom it would reach (admin)",
            body=_object("targetType", closed=True, **_TARGET, user={"type": ["string", "integer", "null"]}),
            _200=_object(people=_COUNT, online=_COUNT),
        )
    },
    "/api/embed/tokens": {
        "post": _does(
            "A token for the inbox of one person in the pages of a site (scope embed; from the site's server)",
            body=_object("username", closed=True, username=_text(64, 1), origin=_text()),
            _201=_object("token expiresAt expiresIn", token=_text(), expiresAt=_TIME, expiresIn=_COUNT),
        )
    },
    "/api/events": {"post": _does("Hand in one external event", body=_ref("Event"), _200=_FREE, _202=_FREE)},
}
