"""`/api/openapi.json`: the OpenAPI 3.1 description of the JSON API, written by hand. A test compares it with the routes.

`domain` and `web.core.request_parsing` validate requests, with error messages for people.
"""

import re
from typing import Any

from flask import Blueprint, Response, jsonify

from broadcast.config.settings import SETTINGS
from broadcast.domain import message, outgoing_url
from broadcast.domain.message import Priority, RoleMatch, TargetType
from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.preferences import NEVER
from broadcast.domain.webhook_events import WebhookType
from broadcast.store import broadcasts, inbox
from broadcast.web.core.identity import allow
from broadcast.web.core.request_parsing import MAX_PAGE_SIZE

Schema = dict[str, Any]
blueprint = Blueprint("openapi", __name__, url_prefix="/api")


@blueprint.get("/openapi.json")
@allow("anyone")
def openapi_json() -> Response:
    return jsonify(build_document(SETTINGS.current.app_name))


def build_document(app_name: str) -> Schema:
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{app_name} API", "version": "1", "description": _DESCRIPTION},
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": _build_paths(),
        "components": {
            "schemas": _SCHEMAS,
            "responses": {"Problem": _response("An error, described for people.", _ref("Problem"), "application/problem+json")},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "broadcast"},
            },
        },
    }  # fmt: skip


def _build_paths() -> Schema:
    paths: Schema = {}
    for route, operation in _OPERATIONS.items():
        method, path = route.split()
        ids = [_parameter(name, _ID, "path") for name in re.findall(r"{(\w+)}", path)]
        paths.setdefault(path, {})[method.lower()] = operation | {"parameters": ids + operation["parameters"]}
    return paths


_DESCRIPTION = (
    "Errors are application/problem+json (RFC 9457). After 503 nothing was done: retry. After 504 it may be "
    "done or not: retry with the same `Idempotency-Key`, or, where there is none, check first. "
    "Lists are `{items, next}`; pass `next` as `after` to get the next page. "
    "With a session (not with a token), a broadcast that reaches many people or interrupts everyone must be "
    "confirmed: the response is 422, with `confirm: {people, password}`, the number of people it reaches and "
    "whether the password is needed. Send the request again with `confirm: {people: that number, password: …}`."
)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str = "", *, closed: bool = False, **properties: Schema) -> Schema:
    schema = {"type": "object", "properties": properties, "required": required.split()}
    return schema | ({"additionalProperties": False} if closed else {})


def _extend(schema: Schema, **properties: Schema) -> Schema:
    return schema | {"properties": schema["properties"] | properties}


def _list(items: Schema, **keywords: Any) -> Schema:
    return {"type": "array", "items": items} | keywords


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _text(max_length: int | None = None, min_length: int = 0) -> Schema:
    limits = {"minLength": min_length, "maxLength": max_length}
    return {"type": "string"} | {name: value for name, value in limits.items() if value}


def _channel_priority(what: str) -> Schema:
    names = [NEVER, *(priority.value for priority in Priority)]
    return {"enum": names, "description": f"From which priority on you want {what} about messages you have not seen."}


_BOOLEAN = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_POSITIVE = {"type": "integer", "minimum": 1}
_ID = _POSITIVE | {"maximum": 2**63 - 1}
_TIME = {"type": "string", "format": "date-time"}
_ANY_OBJECT = {"type": "object"}
_IDS = _object("broadcastIds", closed=True, broadcastIds=_list(_ID, minItems=1, maxItems=1000))
_UNREAD = _object("unread", unread=_COUNT)
_NAMES = _or_null(_list({"type": ["string", "integer"]}, maxItems=message.MAX_TARGETS))
_TARGET = {
    "targetType": {"enum": list(TargetType)},
    "targetMatch": {"enum": [*RoleMatch, None]},
    **dict.fromkeys(("targetIds", "exceptRoles", "exceptIds"), _NAMES),
    "snapshot": _or_null(_BOOLEAN),
}
_MESSAGE_FIELDS = {
    "title": _text(message.MAX_TITLE_CHARACTERS, 1),
    "content": _text(message.MAX_CONTENT_BYTES, 1),
    "priority": {"enum": [*Priority, None]},
    "category": _or_null(_text(message.MAX_CATEGORY_CHARACTERS)),
    "escalation": _or_null(_text(message.MAX_POLICY_CHARACTERS)),
    "requiresAck": _or_null(_BOOLEAN),
    **dict.fromkeys(("scheduledAt", "expiresAt", "ackDueAt"), _or_null(_TIME)),
    "actions": _or_null(_list(_ref("Link"), maxItems=message.MAX_ACTIONS)),
}
_CARD = {
    "id": _ID,
    **_MESSAGE_FIELDS,
    "revision": _COUNT,
    **dict.fromkeys(("contentHtml", "senderName", "why"), _text()),
    "createdAt": _TIME,
    **dict.fromkeys(("publishedAt", "editedAt", "repeatedAt"), _or_null(_TIME)),
    "ackRevision": _POSITIVE | {"description": "Acknowledgements of earlier revisions do not count"},
    "times": _POSITIVE,
    "fromSource": _BOOLEAN,
}
_DRAFT = _MESSAGE_FIELDS | _TARGET | {"draft": _or_null(_BOOLEAN)}
_CONFIRM = _object(closed=True, people=_or_null(_COUNT), password=_text()) | {
    "description": "Only for sessions: the values that a 422 with `confirm` asks for. Send the same request again with them."
}
_BROADCAST_FIELDS = {
    "status": _text(),
    "seq": _or_null(_ID),
    "stats": _ref("Stats"),
    "receiptsDeletedAt": _or_null(_TIME),
    "decisionReason": {
        "enum": [*DecisionReason, None],
        "description": "Why a scheduled broadcast is no longer sent automatically: it waits until someone sends, "
        "edits or recalls it.",
    },
}
_ACKNOWLEDGED = dict.fromkeys(("acknowledgedAt", "earlierAcknowledgedAt"), _or_null(_TIME))
_ACKNOWLEDGED |= dict.fromkeys(("acknowledgedRevision", "earlierAcknowledgedRevision"), _or_null(_COUNT))
_WEBHOOK_FIELDS = {
    "url": _text(outgoing_url.MAX_URL_CHARACTERS, 1),
    "eventTypes": _list({"enum": list(WebhookType)}, minItems=1),
}
_ATTEMPT = {"status": _or_null(_COUNT), "durationMs": _COUNT, "answer": _text()}
_SCHEMAS: dict[str, Schema] = {
    "Problem": _object("type title status detail", type=_text(), title=_text(), status=_COUNT, detail=_text(),
    fields=_ANY_OBJECT),
    "Link": _object("label url", closed=True, label=_text(message.MAX_LABEL_CHARACTERS, 1),
    url=_text(message.MAX_URL_CHARACTERS)),
    "Draft": _object("title content targetType", closed=True, **_DRAFT),
    "Card": _object("id title content contentHtml priority", **_CARD),
    "Message": {"allOf": [_ref("Card"), _object("read", read=_BOOLEAN, endedAt=_or_null(_TIME), **_ACKNOWLEDGED)]},
    "Stats": _object(
        "targeted rates",
        targeted=_COUNT,
        rates=_ANY_OBJECT,
        **dict.fromkeys(("delivered", "seen", "read", "acknowledged", "missing"), _or_null(_COUNT) | {"description":
        "Null where per-person statistics are not disclosed; the others are then lower bounds in steps of `roundedTo`"}),
        noLongerHere=_COUNT | {"description": "Targeted people who are disabled or no longer in the audience"},
        sentTo=_or_null(_COUNT) | {"description": "People at the moment of sending"},
        wouldReach=_or_null(_COUNT) | {"description": "Only for broadcasts that were never sent; otherwise null"},
        roundedTo=_COUNT,
    ),
    "Delivery": _object(
        "userId username name",
        userId=_ID,
        **dict.fromkeys(("username", "name"), _text()),
        **dict.fromkeys(("deliveredAt", "seenAt", "readAt", "acknowledgedAt"), _or_null(_TIME)),
        acknowledgedRevision=_or_null(_COUNT),
        acknowledgedHash=_or_null(_text()),
        earlierAcknowledgements=_list(_object("at", at=_TIME, revision=_or_null(_COUNT), hash=_or_null(_text()))),
        noLongerHere=_or_null(_text()),
    ),
    "Broadcast": {"allOf": [_ref("Card"), _object("status stats", **_BROADCAST_FIELDS)]},
    "Preferences": _object(
        email=_channel_priority("e-mail"), push=_channel_priority("push messages"),
    ),
    "Webhook": _object(
        "id url eventTypes",
        id=_ID,
        **_WEBHOOK_FIELDS,
        **dict.fromkeys(("createdAt", "pausedAt", "goneAt", "failingSince", "previousSecretUntil"), _or_null(_TIME)),
        problem=_or_null(_text()),
    ),
    "WebhookDelivery": _object(
        "id broadcastId type webhookId state",
        **dict.fromkeys(("id", "broadcastId"), _ID),
        **dict.fromkeys(("type", "webhookId"), _text()),
        state={"enum": ["WAITING", "SENT", "FAILED", "CANCELLED"]},
        attemptCount=_COUNT,
        **dict.fromkeys(("createdAt", "dueAt", "endedAt"), _or_null(_TIME)),
        reason=_or_null(_text()),
    ),
    "Event": _ANY_OBJECT | {"description": "A CloudEvent, structured; see docs/events.md."},
}  # fmt: skip


def _response(description: str, schema: Schema | None = None, media_type: str = "application/json") -> Schema:
    return {"description": description} | ({"content": {media_type: {"schema": schema}}} if schema else {})


def _parameter(name: str, schema: Schema, location: str = "query", *, required: bool = False) -> Schema:
    return {"name": name, "in": location, "schema": schema, "required": required or location == "path"}


def _operation(
    summary: str,
    parameters: str = "",
    *,
    body: Schema | None = None,
    may_be_empty: bool = False,
    **schemas_by_status: Schema | None,
) -> Schema:
    """One operation. `parameters` are names in `_PARAMETERS`, with spaces between. `schemas_by_status` is keyed by
    status, such as `_200=…`; any other status is a Problem.
    """
    responses = {status.removeprefix("_"): _response("Done.", schema) for status, schema in schemas_by_status.items()}
    responses["default"] = _PROBLEM
    operation = {"summary": summary, "parameters": [_PARAMETERS[name] for name in parameters.split()]}
    if body is not None:
        operation["requestBody"] = {"required": not may_be_empty, "content": {"application/json": {"schema": body}}}
    return operation | {"responses": responses}


def _page_schema(schema: Schema, **properties: Schema) -> Schema:
    return _object("items next", items=_list(schema), next=_or_null(_text()), **properties)


_PROBLEM = {"$ref": "#/components/responses/Problem"}
_EVENT_STREAM = _response("Server-sent events.", _text(), "text/event-stream")
_PARAMETERS = {
    "after": _parameter("after", {"type": "string", "pattern": "^[0-9]{1,18}$"}),
    "limit": _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}),
    "view": _parameter("view", {"enum": list(inbox.VIEWS)}),
    "filter": _parameter("filter", {"enum": list(broadcasts.STATUS_FILTERS)}),
    **{name: _parameter(name, _text()) for name in ("category", "priority", "q", "sort", "status", "connectionId")},
    "reason": _parameter("reason", _text(500)),
    "through": _parameter("through", _COUNT),
    "userId": _parameter("userId", _ID),
    "messageId": _parameter("messageId", _ID, required=True),
    "cursor": _parameter("after", _text()),
    "Last-Event-ID": _parameter("Last-Event-ID", _text(), "header"),
    "Idempotency-Key": _parameter("Idempotency-Key", {"type": "string", "pattern": "^[ -~]{1,200}$"}, "header"),
    "If-Match": _parameter("If-Match", _text(), "header", required=True),
    "If-None-Match": _parameter("If-None-Match", _text(), "header"),
}
_ACKNOWLEDGE_AGAIN = _BOOLEAN | {
    "default": False,
    "description": "For a live broadcast: true asks everyone to acknowledge again and shows it again; false is a "
    "correction that keeps existing acknowledgements",
}
_EDIT_FLAGS = {"notifyAgain": _BOOLEAN, "acknowledgeAgain": _ACKNOWLEDGE_AGAIN, "confirm": _or_null(_CONFIRM)}
_SNOOZED = {"until": _TIME, "timeZone": _text(), "untilLocal": _TIME, "left": _COUNT, "because": _or_null(_text())}
_TEXTS = dict.fromkeys(("hash", "title", "content"), _text())
_ACKNOWLEDGED_TEXT = _object(
    "revision hash title content actions", revision=_COUNT, **_TEXTS, actions=_list(_ref("Link"))
)
_MARKABLE_VIEWS = [view for view in inbox.VIEWS if view != "ended"]
# by method and path; the names in a path are ids
_OPERATIONS: dict[str, Schema] = {
    "GET /api/openapi.json": _operation("This API description", _200=_ANY_OBJECT) | {"security": []},
    "GET /api/sse/connect": _operation("The stream of your messages", "cursor Last-Event-ID userId connectionId")
    | {"responses": {"200": _EVENT_STREAM, "default": _PROBLEM}},
    "POST /api/sse/disconnect": _operation("Close one of your streams", "connectionId", _204=None),
    "GET /api/sse/stats": _operation("Open streams of all workers (admin)", _200=_ANY_OBJECT),
    "GET /api/sse/connected/{user_id}": _operation(
        "Whether somebody has a stream open", _200=_object(connected=_BOOLEAN)
    ),
    "POST /api/sse/read": _operation("Mark one message read", "messageId", _200=_UNREAD),
    "GET /api/user/messages": _operation(
        "Your inbox, newest first. With a token, it has an ETag, which stays while only its place in the log changes",
        "view category priority q after limit If-None-Match",
        _200=_page_schema(_ref("Message"), unread=_COUNT, asOf=_COUNT, cursor=_text(), userId=_ID),
        _304=None,
    ),
    **{
        f"POST /api/user/messages/{verb}": _operation(f"To {verb} messages", body=_IDS, _200=_UNREAD)
        for verb in ("read", "unread", "archive", "unarchive", "dismiss")
    },
    "GET /api/user/alerts": _operation(
        "Messages to show as alerts when you arrive, most urgent first", _200=_object(items=_list(_ref("Message")))
    ),
    "POST /api/user/messages/acknowledge": _operation(
        "Acknowledge messages at the `revisions` that were shown, by message id, or at the current ones. "
        "A message whose text has changed is refused: with 409 if it is the only one, otherwise listed in `refused`",
        body=_extend(_IDS, revisions=_or_null(_ANY_OBJECT | {"additionalProperties": _ID})),
        _200=_extend(_UNREAD, refused=_list(_ID)),
    ),
    "POST /api/user/messages/snooze": _operation(
        "Hide messages until a time",
        body=_object("broadcastIds until", **_IDS["properties"], until=_TIME),
        _200=_object("unread until timeZone untilLocal", unread=_COUNT, **_SNOOZED),
    ),
    "POST /api/user/messages/read-all": _operation(
        "Mark all messages that match a filter read",
        may_be_empty=True,
        body=_object(
            closed=True,
            view={"enum": _MARKABLE_VIEWS},
            **dict.fromkeys(("category", "priority", "q"), _text()),
            through=_or_null(_COUNT),
        ),
        _200=_UNREAD,
    ),
    "GET /api/user/preferences": _operation("Your alert preferences", _200=_ref("Preferences")),
    "PUT /api/user/preferences": _operation(
        "Replace your alert preferences", body=_ref("Preferences"), _200=_ref("Preferences")
    ),
    "GET /api/admin/broadcasts": _operation(
        "Broadcasts, newest first (admin)", "filter q after limit", _200=_page_schema(_ref("Broadcast"))
    ),
    "POST /api/admin/broadcasts": _operation(
        "Publish, schedule or draft (admin)",
        "Idempotency-Key",
        body=_extend(_SCHEMAS["Draft"], confirm=_or_null(_CONFIRM)),
        _200=_ref("Broadcast"),
        _201=_ref("Broadcast"),
    ),
    "GET /api/admin/broadcasts/{broadcast_id}": _operation(
        "One broadcast (admin)", "If-None-Match", _200=_ref("Broadcast"), _304=None
    ),
    "PATCH /api/admin/broadcasts/{broadcast_id}": _operation(
        "Edit (admin)",
        "If-Match",
        body=_object(closed=True, **_MESSAGE_FIELDS, **_TARGET, **_EDIT_FLAGS),
        _200=_ref("Broadcast"),
    ),
    "DELETE /api/admin/broadcasts/{broadcast_id}": _operation("Recall (admin)", "reason", _200=_ref("Broadcast")),
    "POST /api/admin/broadcasts/{broadcast_id}/cancel": _operation(
        "Recall (admin)", body=_object(closed=True, reason=_text(500, 1)), may_be_empty=True, _200=_ref("Broadcast")
    ),
    "GET /api/admin/broadcasts/{broadcast_id}/stats": _operation(
        "Delivery statistics of a broadcast (admin)", _200=_ref("Stats")
    ),
    "GET /api/admin/broadcasts/{broadcast_id}/deliveries": _operation(
        "Delivery statistics by recipient (admin)", "sort after limit", _200=_page_schema(_ref("Delivery"))
    ),
    "GET /api/admin/broadcasts/{broadcast_id}/revisions": _operation(
        "The texts that people acknowledged (admin)",
        _200=_object("ackRevision items", ackRevision=_COUNT, items=_list(_ACKNOWLEDGED_TEXT)),
    ),
    "POST /api/admin/broadcasts/{broadcast_id}/remind": _operation(
        "Remind recipients who have not read it (admin)", _200=_object("reminded", reminded=_or_null(_COUNT))
    ),
    "GET /api/admin/dlt": _operation(
        "Dead letters: events that could not be published (admin)", "status after limit", _200=_page_schema(_ANY_OBJECT)
    ),
    "DELETE /api/admin/dlt": _operation(
        "Purge all waiting dead letters (admin)", "through", _200=_object("purged", purged=_COUNT)
    ),
    "POST /api/admin/dlt/redrive": _operation("Redrive all waiting dead letters (admin)", _200=_ANY_OBJECT),
    "GET /api/admin/dlt/{letter_id}": _operation("One dead letter (admin)", _200=_ANY_OBJECT),
    "DELETE /api/admin/dlt/{letter_id}": _operation("Purge a dead letter (admin)", _204=None),
    "POST /api/admin/dlt/{letter_id}/redrive": _operation(
        "Redrive a dead letter, unchanged or with `value` (admin)",
        body=_object(closed=True, value=_or_null(_text()), confirm=_or_null(_CONFIRM)),
        may_be_empty=True,
        _200=_ANY_OBJECT,
    ),
    "GET /api/admin/webhooks": _operation("Webhook endpoints (admin)", _200=_page_schema(_ref("Webhook"))),
    "POST /api/admin/webhooks": _operation(
        "Add a webhook endpoint; only this response and that of a rotation have its secret (admin)",
        body=_object("url eventTypes", closed=True, **_WEBHOOK_FIELDS),
        _201={"allOf": [_ref("Webhook"), _object("secret", secret=_text())]},
    ),
    "GET /api/admin/webhooks/{endpoint_id}": _operation("One webhook endpoint (admin)", _200=_ref("Webhook")),
    "PATCH /api/admin/webhooks/{endpoint_id}": _operation(
        "Change, pause or enable a webhook endpoint (admin)",
        body=_object(closed=True, **_WEBHOOK_FIELDS, paused=_BOOLEAN, enabled=_BOOLEAN),
        _200=_ref("Webhook"),
    ),
    "DELETE /api/admin/webhooks/{endpoint_id}": _operation("Delete a webhook endpoint (admin)", _204=None),
    "POST /api/admin/webhooks/{endpoint_id}/secret": _operation(
        "Rotate the secret; the old one signs beside it for 24 hours (admin)", _200=_object("secret", secret=_text())
    ),
    "POST /api/admin/webhooks/{endpoint_id}/test": _operation(
        "Send a test event now (admin)",
        _200=_object("accepted durationMs answer", accepted=_BOOLEAN, **_ATTEMPT),
    ),
    "GET /api/admin/webhooks/{endpoint_id}/deliveries": _operation(
        "Deliveries to a webhook endpoint, newest first (admin)",
        "after limit",
        _200=_page_schema(_ref("WebhookDelivery")),
    ),
    "GET /api/admin/webhooks/{endpoint_id}/deliveries/{delivery_id}": _operation(
        "One delivery with its body and its attempts (admin)",
        _200={
            "allOf": [
                _ref("WebhookDelivery"),
                _object("body attempts", body=_text(), attempts=_list(_object("at", at=_TIME, **_ATTEMPT))),
            ]
        },
    ),
    "POST /api/admin/webhooks/{endpoint_id}/deliveries/{delivery_id}/replay": _operation(
        "Send a delivery again that has ended, under its id (admin)", _204=None
    ),
    "POST /api/admin/audience/preview": _operation(
        "Preview an audience (admin)",
        body=_object("targetType", closed=True, **_TARGET, user={"type": ["string", "integer", "null"]}),
        _200=_object(people=_COUNT, online=_COUNT),
    ),
    "POST /api/embed/tokens": _operation(
        "Create a token for one user's embedded inbox (scope embed; from the site's server)",
        body=_object("username", closed=True, username=_text(64, 1), origin=_text()),
        _201=_object("token expiresAt expiresIn", token=_text(), expiresAt=_TIME, expiresIn=_COUNT),
    ),
    "POST /api/events": _operation("Send one external event", body=_ref("Event"), _200=_ANY_OBJECT, _202=_ANY_OBJECT),
}
