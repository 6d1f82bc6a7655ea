"""The page "Where it went" of a broadcast: by person and channel what was sent, and what became of it."""

from flask import Blueprint, request

from broadcast.base.errors import Forbidden, NotFound
from broadcast.base.numbers import parse_number
from broadcast.channels.registry import CHANNELS
from broadcast.domain.permissions import Permission
from broadcast.store import broadcasts, delivery_list, digests
from broadcast.store.delivery_list import STATES, DeliveryFilters, ListedDelivery, Position
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.core.csv_download import stream_csv
from broadcast.web.core.identity import allow
from broadcast.web.core.lookup import get_broadcast_or_404
from broadcast.web.core.rendering import is_htmx, render_page
from broadcast.web.core.request_parsing import read_known

blueprint = Blueprint("deliveries", __name__)

PAGE_SIZE = 50
_CHUNK_ROWS = 1000  # rows per read of a download
_OTHER_LABELS = {
    digests.CHANNEL: "Digest",
    "correction": "Correction by e-mail",
    "push correction": "Correction by push",
}
_HEADER = ("user id", "username", "name", "channel", "revision", "state", "at", "reason", "attempts")
_HEADER += ("seen at", "read at", "acknowledged at")


@blueprint.get("/broadcasts/<int:broadcast_id>/deliveries")
@allow(Permission.FIGURES)
def show(broadcast_id: int):
    broadcast = _get_broadcast(broadcast_id)
    counts, filters = delivery_list.count_by_channel(broadcast_id), _read_filters()
    rows = delivery_list.list_deliveries(broadcast, filters, after=_read_position(), limit=PAGE_SIZE + 1)
    values = {
        "broadcast": broadcast,
        "filters": filters,
        "deliveries": rows[:PAGE_SIZE],
        "next": "-".join(map(str, rows[PAGE_SIZE - 1].position)) if len(rows) > PAGE_SIZE else None,
        "labels": _get_labels(),
    }
    if is_htmx() and request.args.get("after"):
        return render_page("console/deliveries/_rows.html", **values)
    return render_page("console/deliveries/page.html", counts=counts, states=STATES, **values)


@blueprint.get("/broadcasts/<int:broadcast_id>/deliveries.csv")
@allow(Permission.FIGURES)
def export(broadcast_id: int):
    """All deliveries that the filters match."""
    _get_broadcast(broadcast_id)
    filters = _read_filters()

    def read_chunk(after: Position | None):
        broadcast = broadcasts.get(broadcast_id)
        if broadcast is None:
            return [], None
        rows = delivery_list.list_deliveries(broadcast, filters, after=after, limit=_CHUNK_ROWS)
        return [_to_csv_row(row) for row in rows], rows[-1].position if len(rows) == _CHUNK_ROWS else None

    return stream_csv(f"deliveries-{broadcast_id}", _HEADER, read_chunk)


def _get_broadcast(broadcast_id: int) -> Broadcast:
    if not viewer_stats.has_per_recipient_stats():
        raise Forbidden("This system shows how many people have read a broadcast, but not who.")
    broadcast = get_broadcast_or_404(broadcast_id)
    if broadcast.seq is None:
        raise NotFound("It was never sent.")
    return broadcast


def _read_filters() -> DeliveryFilters:
    return DeliveryFilters(
        read_known(request.args, "channel", _get_labels(), ""), read_known(request.args, "state", STATES, "")
    )


def _read_position() -> Position | None:
    """The row after which the page begins; None for the first page, or for any other text."""
    numbers = [parse_number(text) for text in request.args.get("after", "")[:64].split("-")]
    return Position(*numbers) if len(numbers) == 3 and None not in numbers else None


def _get_labels() -> dict[str, str]:
    """What pages call each channel of a delivery."""
    return {name: channel.label for name, channel in CHANNELS.current.items()} | _OTHER_LABELS


def _to_csv_row(row: ListedDelivery) -> list:
    return [row.user_id, row.username, row.name, row.channel, row.revision, row.state.lower(), *row[7:]]
