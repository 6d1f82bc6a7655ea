"""Flood control: what becomes of an event when its source sends many.

It joins the live card with its key, is published as long as its rate cap has room, or waits in quarantine as a draft.
`decide` is pure: `actions.flood_state` loads the state, and `actions.inbound_batch` carries out the verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from broadcast.domain.audience import Audience
from broadcast.domain.inbound import PublishCommand, RateCap
from broadcast.domain.lifecycle import Status

MAX_QUARANTINED_PER_SOURCE = 100  # quarantined drafts per source: as many as the console deletes at once
MAX_QUARANTINED_PER_OWNER = 300  # per account or topic, whatever sources it names
OVER_CAP = "over-cap"  # rejection code above that


@dataclass(slots=True)
class Candidate:
    """A broadcast that events may join. `is_changed`: this batch has created or changed it, unseen by anybody so far."""

    broadcast: Any
    audience: Audience
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class FloodState:
    """What is known when one event is decided on. Its candidates are its sender's, of its source, newest first.

    `cards` are live and have its collapse key; `drafts` are in quarantine and have its key or, without one, its text.
    `remaining` is how many broadcasts its rate cap still allows, None without a cap.
    """

    cards: Sequence[Candidate] = ()
    drafts: Sequence[Candidate] = ()
    remaining: int | None = None
    quarantined_of_source: int = 0
    quarantined_of_owner: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`joined` takes the event's text and counts it; None for a new broadcast. `is_shown`: its audience sees it (again),
    now or when it is due, and the rate cap counts it. `reason` is for those who find a quarantined or rejected event.
    """

    kind: Literal["published", "collapsed", "quarantined", "rejected"]
    joined: Candidate | None = None
    is_shown: bool = False
    reason: str = ""


def decide(command: PublishCommand, audience: Audience, status: Status, state: FloodState) -> Verdict:
    """What becomes of an event whose broadcast would begin with `status`. It joins only what has the same audience."""
    has_room = state.remaining is None or state.remaining > 0
    if status == Status.ACTIVE and (card := _find_joinable(state.cards, audience)):
        return Verdict("collapsed", card, is_shown=has_room and not card.is_changed)
    if status == Status.DRAFT or has_room:
        return Verdict("published", is_shown=status != Status.DRAFT)
    if draft := _find_joinable(state.drafts, audience):
        return Verdict("quarantined", draft)
    excess = _describe_excess(command.rate_cap)
    if fullness := _describe_full_quarantine(state):
        advice = "Send or delete those, then hand this in again."
        return Verdict("rejected", reason=f"{excess}, and {fullness} wait in quarantine already. {advice}")
    return Verdict("quarantined", reason=f"{excess}. This came on top, so it waits here, and nobody has seen it.")


def _find_joinable(candidates: Sequence[Candidate], audience: Audience) -> Candidate | None:
    return next((candidate for candidate in candidates if candidate.audience == audience), None)


def _describe_full_quarantine(state: FloodState) -> str | None:
    if state.quarantined_of_source >= MAX_QUARANTINED_PER_SOURCE:
        return f"{MAX_QUARANTINED_PER_SOURCE} drafts of this source"
    if state.quarantined_of_owner >= MAX_QUARANTINED_PER_OWNER:
        return f"{MAX_QUARANTINED_PER_OWNER} drafts of whoever sent this"
    return None


def _describe_excess(rate_cap: RateCap) -> str:
    limit_text = f"{rate_cap.limit:,} broadcast{'s' * (rate_cap.limit > 1)}"
    if rate_cap.effective_sender_limit != rate_cap.limit:
        limit_text += f", or whoever sent it more than {rate_cap.effective_sender_limit:,},"
    return f"Its source sent more than {limit_text} in {rate_cap.window_seconds:,} s"
