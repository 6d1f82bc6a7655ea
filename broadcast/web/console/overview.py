"""The console's first page: what is live, what is due, what needs somebody, and how to send the first one."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from flask import Blueprint, request, url_for

from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.overdue_schedules import Reason
from broadcast.domain.permissions import Permission
from broadcast.domain.time_zones import read_zone, start_of_day
from broadcast.store import broadcast_query, broadcasts, dead_letters, overdue_schedules, users
from broadcast.store.broadcast_query import Look
from broadcast.store.dead_letters import LetterStatus
from broadcast.streams.presence import PRESENCE
from broadcast.web.console import viewer_stats
from broadcast.web.console.broadcasts.list_rows import rows
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("overview", __name__)

_OVERDUE = 3  # of them are named; their own pages tell the rest


class Need(NamedTuple):
    """Something that waits for a person, and where it is seen to."""

    sentence: str
    address: str
    press: str


@blueprint.get("/")
@allow(Permission.SEE)
def overview():
    now, presence = clock.now(), PRESENCE.current
    zone = read_zone(users.preferences(me().id).time_zone)
    counts = broadcast_query.counts(Look())
    figures = {
        "people": users.count_all(),
        "online": len(presence.online_ids()),
        "live": counts["active"],
        "scheduled": counts["scheduled"],
        "drafts": counts["draft"],
        "sent_today": broadcasts.published_since(start_of_day(now, zone)),
    }
    live, due = rows(broadcast_query.page(Look(tab="active", size=5))), rows(overdue_schedules.due_next(limit=5))
    return page(
        "console/overview.html",
        live=live,
        due=due,
        figures=figures,
        day_in=zone.key,
        needs=list(_needs(now)),
        base_url=request.host_url.rstrip("/"),
    )


def _needs(now: datetime) -> Iterator[Need]:
    yield from _decisions()
    overdue = broadcasts.overdue(now, limit=_OVERDUE)
    figures = viewer_stats.of(overdue)
    for broadcast in overdue:
        if (missing := figures[broadcast.id].missing) != 0:
            yield Need(
                _past_its_day(broadcast.title, missing), url_for("figures.show", broadcast_id=broadcast.id), "Who"
            )
    if me().actor.may(Permission.OPERATE):
        yield from _troubles()


def _decisions() -> Iterator[Need]:
    """Plans that do not go out by themselves any more."""
    for broadcast in overdue_schedules.waiting(limit=_OVERDUE):
        sentence = f"“{broadcast.title}” was not sent. {Reason(broadcast.decision_reason).sentence}"
        yield Need(sentence, url_for("console.one.show", broadcast_id=broadcast.id), "Decide")
    if (more := overdue_schedules.count_waiting() - _OVERDUE) > 0:
        words = "1 more plan waits" if more == 1 else f"{more:,} more plans wait"
        yield Need(f"{words} for a decision.", url_for("console.listing.listing", filter="scheduled"), "Scheduled")


def _past_its_day(title: str, missing: int | None) -> str:
    """Where no figure of persons may be told, not even whether somebody is missing."""
    if missing is None:
        return f"“{title}” is past its day of acknowledgement."
    return f"“{title}” is past its day: {missing:,} {'has' if missing == 1 else 'have'} not acknowledged it."


def _troubles() -> Iterator[Need]:
    """What the operator would find on the health page, without the slow questions of the doctor."""
    runtime, settings = RUNTIME.current, SETTINGS.current
    health = url_for("console.health.health")
    if waiting := dead_letters.counts()[LetterStatus.WAITING.value]:
        word = "event waits" if waiting == 1 else "events wait"
        yield Need(f"{waiting:,} {word} that could not become broadcasts.", "/console/dead-letters", "Dead letters")
    for name, problem in sorted(runtime.problems.items()):
        yield Need(f"The loop “{name}” failed and is being restarted: {problem}", health, "Health")
    if settings.redis_url and not runtime.bus.healthy:
        yield Need("Redis does not answer this worker: messages take up to a second.", health, "Health")
    if runtime.bridge and runtime.bridge.problem:
        yield Need(f"Kafka: {runtime.bridge.problem}", health, "Health")
