"""The console's first page: what is live, what is due, what needs somebody, and how to send the first one."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from flask import Blueprint, current_app, request, url_for

from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.domain.plans import Reason
from broadcast.domain.zones import read_zone, start_of_day
from broadcast.store import broadcasts, dead_letters, lists, people, plans
from broadcast.store.dead_letters import LetterStatus
from broadcast.store.lists import Look
from broadcast.web import told_figures
from broadcast.web.console.rows import rows
from broadcast.web.identity import allow, me
from broadcast.web.render import page

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
    now, presence = clock.now(), current_app.extensions["presence"]
    zone = read_zone(people.preferences(me().id).time_zone)
    counts = lists.counts(Look())
    figures = {
        "people": people.count_all(),
        "online": len(presence.online_ids()),
        "live": counts["active"],
        "scheduled": counts["scheduled"],
        "drafts": counts["draft"],
        "sent_today": broadcasts.published_since(start_of_day(now, zone)),
    }
    live, due = rows(lists.page(Look(tab="active", size=5))), rows(plans.due_next(limit=5))
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
    figures = told_figures.of(overdue)
    for broadcast in overdue:
        if (missing := figures[broadcast.id].missing) != 0:
            yield Need(
                _past_its_day(broadcast.title, missing), url_for("figures.show", broadcast_id=broadcast.id), "Who"
            )
    if me().actor.may(Permission.OPERATE):
        yield from _troubles()


def _decisions() -> Iterator[Need]:
    """Plans that do not go out by themselves any more."""
    for broadcast in plans.waiting(limit=_OVERDUE):
        sentence = f"“{broadcast.title}” was not sent. {Reason(broadcast.decision_reason).sentence}"
        yield Need(sentence, url_for("console.one.show", broadcast_id=broadcast.id), "Decide")
    if (more := plans.count_waiting() - _OVERDUE) > 0:
        words = "1 more plan waits" if more == 1 else f"{more:,} more plans wait"
        yield Need(f"{words} for a decision.", url_for("console.listing.listing", filter="scheduled"), "Scheduled")


def _past_its_day(title: str, missing: int | None) -> str:
    """Where no figure of persons may be told, not even whether somebody is missing."""
    if missing is None:
        return f"“{title}” is past its day of acknowledgement."
    return f"“{title}” is past its day: {missing:,} {'has' if missing == 1 else 'have'} not acknowledged it."


def _troubles() -> Iterator[Need]:
    """What the operator would find on the health page, without the slow questions of the doctor."""
    runtime, settings = current_app.extensions["runtime"], current_app.extensions["settings"]
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
