"""The console's first page: live and due broadcasts, open tasks, and how to send the first broadcast."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from flask import Blueprint, request, url_for

from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.permissions import Permission
from broadcast.domain.time_zones import get_start_of_day, parse_zone
from broadcast.store import broadcasts, dead_letters, users
from broadcast.store.broadcasts import BroadcastQuery
from broadcast.store.dead_letters import DeadLetterStatus
from broadcast.streams.presence import PRESENCE
from broadcast.web.console import viewer_stats
from broadcast.web.console.broadcasts.listing import load_list_items
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import render_page
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("overview", __name__)

_MAX_ITEMS_LISTED = 3  # items named here; their own pages list all


class ActionItem(NamedTuple):
    """A task for a user, and the page to handle it."""

    sentence: str
    url: str
    link_text: str


@blueprint.get("/")
@allow(Permission.SEE)
def overview():
    now = clock.now()
    zone = parse_zone(users.get_preferences(current_identity().id).time_zone)
    summary = {
        "people": users.count_all(),
        "online": len(PRESENCE.current.get_online_ids()),
        "sent_today": broadcasts.count_published_since(get_start_of_day(now, zone)),
    }
    return render_page(
        "console/overview.html",
        live=load_list_items(broadcasts.list_matching(BroadcastQuery(tab="active", size=5))),
        due=load_list_items(broadcasts.list_next_due(limit=5)),
        figures=summary,
        counts=broadcasts.count_by_tab(BroadcastQuery()),
        day_in=zone.key,
        needs=list(_list_action_items(now)),
        base_url=request.host_url.rstrip("/"),
    )


def _list_action_items(now: datetime) -> Iterator[ActionItem]:
    yield from _list_waiting_decisions()
    overdue = broadcasts.list_overdue(now, limit=_MAX_ITEMS_LISTED)
    stats_by_id = viewer_stats.load_stats(overdue)
    for broadcast in overdue:
        if (missing := stats_by_id[broadcast.id].missing) != 0:
            url = url_for("figures.show", broadcast_id=broadcast.id)
            yield ActionItem(_describe_overdue(broadcast.title, missing), url, "View recipients")
    if current_identity().actor.may(Permission.OPERATE):
        yield from _list_problems()


def _list_waiting_decisions() -> Iterator[ActionItem]:
    """Scheduled broadcasts that are no longer sent automatically."""
    for broadcast in broadcasts.list_awaiting_decision(limit=_MAX_ITEMS_LISTED):
        sentence = f"“{broadcast.title}” was not sent. {DecisionReason(broadcast.decision_reason).sentence}"
        yield ActionItem(sentence, url_for("console.one.show", broadcast_id=broadcast.id), "Decide")
    if (remaining := broadcasts.count_awaiting_decision() - _MAX_ITEMS_LISTED) > 0:
        subject = "scheduled broadcast is" if remaining == 1 else "scheduled broadcasts are"
        url = url_for("console.listing.listing", filter="scheduled")
        yield ActionItem(f"{remaining:,} more {subject} waiting for a decision.", url, "Scheduled")


def _describe_overdue(title: str, missing: int | None) -> str:
    """Reveals nothing per recipient where that is not allowed, not even whether anybody is missing."""
    if missing is None:
        return f"“{title}” is past its acknowledgement deadline."
    return f"“{title}” is overdue: {missing:,} {'has' if missing == 1 else 'have'} not acknowledged it."


def _list_problems() -> Iterator[ActionItem]:
    """The problems of the health page, without the doctor's slow checks."""
    runtime, settings = RUNTIME.current, SETTINGS.current
    health_url = url_for("console.system.health")
    if waiting := dead_letters.count_by_status()[DeadLetterStatus.WAITING.value]:
        subject = "dead letter is" if waiting == 1 else "dead letters are"
        yield ActionItem(f"{waiting:,} {subject} waiting.", "/console/dead-letters", "Dead letters")
    for name, problem in sorted(runtime.problems.items()):
        yield ActionItem(f"The loop “{name}” failed and is being restarted: {problem}", health_url, "Health")
    if settings.redis_url and not runtime.bus.is_healthy:
        yield ActionItem("This worker cannot reach Redis. Messages may take up to a second.", health_url, "Health")
    if runtime.bridge and runtime.bridge.problem:
        yield ActionItem(f"Kafka: {runtime.bridge.problem}", health_url, "Health")
