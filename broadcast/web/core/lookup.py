"""Ids in URLs. What no row has, or what does not fit into the database, is 404 and not an error."""

from typing import TypeVar

from flask import Flask
from werkzeug.routing import IntegerConverter

from broadcast.base.errors import NotFound
from broadcast.store import broadcasts, dead_letters, webhooks
from broadcast.store.models import Broadcast, WebhookEndpoint
from broadcast.store.models.ingest import DeadLetter

T = TypeVar("T")


class _IdConverter(IntegerConverter):
    regex = r"\d{1,18}"  # fits into 63 bits


def init_app(app: Flask) -> None:
    app.url_map.converters["int"] = _IdConverter


def or_404(row: T | None, sentence: str) -> T:
    """The row that was looked up. Raises NotFound with this sentence if there is none."""
    if row is None:
        raise NotFound(sentence)
    return row


def get_broadcast_or_404(broadcast_id: int) -> Broadcast:
    return or_404(broadcasts.get(broadcast_id), "There is no such broadcast.")


def get_letter_or_404(letter_id: int) -> DeadLetter:
    return or_404(dead_letters.get(letter_id), "There is no such dead letter.")


def get_webhook_or_404(endpoint_id: int) -> WebhookEndpoint:
    return or_404(webhooks.get_endpoint(endpoint_id), "There is no such webhook.")
