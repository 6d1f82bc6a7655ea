"""The figures of broadcasts as the person asking may see them: the only way from what is counted to a page, a file or JSON.

Figures from which one person's reading can be told are for those who may see who has read, and for nobody where the system
tells totals only (`domain.figures.disclose`).
"""

from collections.abc import Sequence
from typing import Any

from broadcast.config.settings import SETTINGS
from broadcast.domain.permissions import Permission
from broadcast.domain.stats import STEPS, Figures, coarse, disclose, of_forgotten
from broadcast.store import broadcast_totals
from broadcast.store.broadcast_stats import Pace
from broadcast.store.models import Broadcast
from broadcast.web.core.identity import me


def tells_persons() -> bool:
    """Whether this system tells anybody who has read what."""
    return SETTINGS.current.figures_per_person


def shows_persons() -> bool:
    """Whether the person asking may see who has read what."""
    return tells_persons() and me().actor.may(Permission.FIGURES)


def of(rows: Sequence[Broadcast], *, per_person: bool | None = None) -> dict[int, Figures]:
    """By the id of each broadcast. `per_person`: what `shows_persons` said, for whoever writes after the request is over."""
    per_person = shows_persons() if per_person is None else per_person
    counted = broadcast_totals.totals([row for row in rows if not row.receipts_deleted_at])
    forgotten = {row.id: of_forgotten(row.audience_count) for row in rows if row.receipts_deleted_at}
    return {id: disclose(totals, per_person=per_person) for id, totals in counted.items()} | forgotten


def of_one(row: Broadcast) -> Figures:
    return of([row])[row.id]


def of_new(row: Broadcast) -> Figures:
    """Of a broadcast that was stored a moment ago."""
    return disclose(broadcast_totals.of_new(row), per_person=shows_persons())


def of_pace(pace: Pace, figures: Figures) -> Pace | None:
    """The curve under the same rule; None where nothing of it may be told. A percentile is the moment of one reader."""
    if figures.is_exact:
        return pace
    if figures.is_kept_back:
        return None
    delivered, read = ([coarse(count, figures.targeted) for count in line] for line in (pace.delivered, pace.read))
    return Pace(None, None, delivered, read)


def as_json(figures: Figures) -> dict[str, Any]:
    """As the API has it."""
    counted = {"targeted": figures.targeted} | {step: getattr(figures, step) for step in STEPS}
    rates = {step: figures.rate(step) for step in STEPS}
    return counted | {
        "rates": {step: None if rate is None else round(rate, 4) for step, rate in rates.items()},
        "missing": figures.missing,
        "noLongerHere": figures.gone,
        "sentTo": figures.sent_to,
        "wouldReach": figures.would_reach,
        "roundedTo": figures.rounded_to,
    }
