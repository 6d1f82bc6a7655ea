"""Webhooks: signs what waits for an endpoint, sends it, and records the answer. Every worker runs it.

Each endpoint has a greenlet of its own while it has something due, so a slow one holds up no other. Nothing is sent
inside a transaction. A worker that dies after the server took a request and before that was recorded leaves it to be
sent again, under the same id.
"""

import time
from datetime import datetime, timedelta
from typing import NamedTuple

import gevent
import structlog
from flask import Flask
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from broadcast.base.app_parts import AppPart
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.base.numbers import parse_number
from broadcast.channels import outgoing_http
from broadcast.channels.outbox import MAX_AGE, compute_delay
from broadcast.channels.outgoing_http import RequestFailed, Response
from broadcast.channels.protocol import Accepted, Gone, Outcome, Refused, Retry
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.outgoing_url import AddressRefused
from broadcast.domain.visible_text import to_single_line
from broadcast.domain.webhook_events import TEST_TYPE, encode_body
from broadcast.observability import metrics
from broadcast.store import webhook_planning, webhooks
from broadcast.store.database import db
from broadcast.store.models import WebhookEndpoint
from broadcast.store.transactions import write_transaction
from broadcast.store.webhooks import AttemptResult, ClaimedWebhook

_log = structlog.get_logger(__name__)

CHANNEL_NAME = "webhook"  # in metrics
_LEASE = timedelta(seconds=3 * outgoing_http.TIMEOUT_SECONDS)
_MAX_RETRY_AFTER_SECONDS = 3600
_MAX_ANSWER_CHARACTERS = 300
_PLAN_PAUSE_SECONDS = 0.005  # between transactions: other writers go first


class Sent(NamedTuple):
    """One request: what it means for the delivery, and what the log of attempts has."""

    outcome: Outcome
    result: AttemptResult


def run_planning(*, now: datetime) -> None:
    """Make the deliveries of what happened since the last call. Raises TemporarilyUnavailable."""
    for endpoint_id in webhook_planning.list_behind():
        has_more = True
        while has_more:
            with write_transaction() as session:
                has_more = webhook_planning.plan_log(session, endpoint_id, now=now)
            gevent.sleep(_PLAN_PAUSE_SECONDS)
    has_more = webhook_planning.has_unlogged(now=now)
    while has_more:
        with write_transaction() as session:
            has_more = webhook_planning.plan_unlogged(session, now=now)
        gevent.sleep(_PLAN_PAUSE_SECONDS)


class WebhookSender:
    """One worker's sender. Once `is_stopping`, it ends the requests that it has begun, and sends nothing more."""

    def __init__(self, app: Flask):
        self._app = app
        self.is_stopping = False
        self._greenlets: dict[int, gevent.Greenlet] = {}  # by endpoint

    def run_once(self) -> None:
        """Plan, and begin to send to every endpoint that has something due; returns without waiting for their answers.

        Needs an application context. Raises TemporarilyUnavailable.
        """
        now = clock.now()
        run_planning(now=now)
        for endpoint_id in webhooks.list_due_endpoint_ids(now=now):
            if endpoint_id not in self._greenlets and not self.is_stopping:
                self._greenlets[endpoint_id] = gevent.spawn(self._serve, endpoint_id)

    def wait(self) -> None:
        """Wait until everything that was due has been tried."""
        gevent.joinall(list(self._greenlets.values()))

    def _serve(self, endpoint_id: int) -> None:
        try:
            with self._app.app_context():
                while not self.is_stopping and self._send_next(endpoint_id):
                    gevent.sleep(0.001)  # other loops, between requests
        except TemporarilyUnavailable:
            pass  # the next run tries again; what was claimed, when its lease ends
        except Exception:
            _log.exception("webhook.failed", endpoint=endpoint_id)
        finally:
            self._greenlets.pop(endpoint_id, None)

    def _send_next(self, endpoint_id: int) -> bool:
        now = clock.now()
        with write_transaction() as session:
            claimed = webhooks.claim_next(session, endpoint_id, now=now, until=now + _LEASE)
        if claimed is None:
            return False
        sent = send(claimed.url, claimed.secrets, claimed.message_id, claimed.body, now=now)
        now = clock.now()
        with write_transaction() as session:
            if webhooks.add_attempt(session, claimed.id, sent.result, at=now):
                _settle(session, claimed, sent.outcome, now)
        return True


def send(url: str, secrets: tuple[str, ...], message_id: str, body: str, *, now: datetime) -> Sent:
    """Send one request, signed with each of these secrets; see `Sent`. It blocks its greenlet, outside of transactions."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Broadcast-Webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }
    db.session.rollback()  # no transaction stays open while the server takes its time
    may_be_private, started_at = SETTINGS.current.webhook_private_addresses, time.monotonic()
    try:
        response = outgoing_http.post(url, body=body.encode(), headers=headers, may_be_private=may_be_private)
        outcome, status = _judge(response), response.status
        answer = to_single_line(response.body.decode(errors="replace"))[:_MAX_ANSWER_CHARACTERS]
    except (RequestFailed, AddressRefused) as problem:
        outcome = Refused(str(problem)) if isinstance(problem, AddressRefused) else Retry(str(problem))
        status, answer = None, str(problem)[:_MAX_ANSWER_CHARACTERS]
    return Sent(outcome, AttemptResult(status, round((time.monotonic() - started_at) * 1000), answer))


def send_test(endpoint: WebhookEndpoint, *, now: datetime) -> Sent:
    """Send an event that only shows that requests arrive. It is in no log."""
    body = encode_body(TEST_TYPE, now, {"message": "This is a test."})
    return send(endpoint.url, webhooks.list_secrets(endpoint, now=now), f"evt_test_{time.time_ns()}", body, now=now)


def _judge(response: Response) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        return Accepted()
    if status == 410:
        return Gone("The endpoint answered 410 Gone: it wants nothing any more.")
    if 300 <= status < 400:
        place = to_single_line(response.headers.get("location", "another address"))[:150]
        return Retry(
            f"The endpoint answered {status} and redirects to {place}. Redirects are not followed: change the URL."
        )
    after_seconds = parse_number(response.headers.get("retry-after"))
    if after_seconds is not None:
        after_seconds = min(after_seconds, _MAX_RETRY_AFTER_SECONDS)
    return Retry(f"The endpoint answered {status}.", after_seconds)


def _settle(session: Session, claimed: ClaimedWebhook, outcome: Outcome, now: datetime) -> None:
    match outcome:
        case Accepted():
            _finish(session, claimed, "SENT", None, now)
            webhooks.set_problem(session, claimed.endpoint_id, None, at=now)
            return
        case Gone():
            _finish(session, claimed, "FAILED", outcome.reason, now)
            webhooks.mark_gone(session, claimed.endpoint_id, reason=outcome.reason, at=now)
            return
        case Refused():
            _finish(session, claimed, "FAILED", outcome.reason, now)
        case Retry() if now - claimed.created_at > MAX_AGE:
            reason = f"Given up after {claimed.attempts} attempts. {outcome.reason}"
            _finish(session, claimed, "FAILED", reason, now)
        case Retry():
            metrics.delivery_outcomes.labels(CHANNEL_NAME, "retried").inc()
            due_at = now + timedelta(seconds=compute_delay(outcome, claimed.attempts))
            webhooks.postpone(session, claimed, due_at, reason=outcome.reason)
    webhooks.set_problem(session, claimed.endpoint_id, outcome.reason, at=now)


def _finish(session: Session, claimed: ClaimedWebhook, state: str, reason: str | None, now: datetime) -> None:
    metrics.delivery_outcomes.labels(CHANNEL_NAME, state.lower()).inc()
    webhooks.finish(session, claimed, state, at=now, reason=reason)


WEBHOOKS = AppPart[WebhookSender]("webhooks")
