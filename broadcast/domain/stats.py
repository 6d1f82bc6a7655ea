"""What the figures of a broadcast mean. One definition, asked by page, CSV, API, list, overview and reminder.

- **Targeted**: everybody who could see it at some moment between its sending and its end, and everybody whom it reached.
- **Delivered, seen, read, acknowledged**: of the targeted. A later step counts for the earlier ones. What was read before the
  broadcast was shown again does not count as read, an acknowledgement of an earlier revision than the one that is asked for
  not as acknowledged.
- **No longer here**: targeted, but disabled or no longer in the audience. They keep what they did; nothing is asked of them.
- **Missing**: targeted, still here, and not done. Done is acknowledged where that is asked for, else read.

So targeted = done and here + missing + no longer here, always. What has not been sent has targeted nobody; it *would reach*
people.

Where figures must not tell of persons, `disclose_stats` is the one place that decides what is left of them.
"""

from dataclasses import dataclass

# People of whom a figure may speak together. Five is what statistical offices take as the least for a table cell; with fewer,
# whoever knows the others knows the one.
MIN_GROUP_SIZE = 5
FUNNEL_STEPS = ("delivered", "seen", "read", "acknowledged")


@dataclass(frozen=True, slots=True)
class FunnelCounts:
    """Distinct people, and how many of them came how far; never more at a step than at the one before."""

    recipients: int = 0
    delivered: int = 0
    seen: int = 0
    read: int = 0
    acknowledged: int = 0

    def count_done(self, *, requires_ack: bool) -> int:
        return self.acknowledged if requires_ack else self.read


@dataclass(frozen=True, slots=True)
class BroadcastTotals:
    """All that is counted of one broadcast: everybody targeted, and of these who is no longer here.

    `sent_to` is the number of people at the moment of sending, None until then. `would_reach` is None once it was sent.
    """

    targeted: FunnelCounts
    gone: FunnelCounts
    requires_ack: bool
    sent_to: int | None
    would_reach: int | None

    @property
    def remaining(self) -> int:
        return self.targeted.recipients - self.gone.recipients

    @property
    def remaining_done(self) -> int:
        return self.targeted.count_done(requires_ack=self.requires_ack) - self.gone.count_done(
            requires_ack=self.requires_ack
        )

    @property
    def missing(self) -> int:
        return self.remaining - self.remaining_done


@dataclass(frozen=True, slots=True)
class BroadcastStats:
    """What may be told of the Totals. None is a figure that is kept back.

    With `rounded_to` above 1 the steps are lower bounds, in whole groups of so many people.
    """

    targeted: int
    delivered: int | None
    seen: int | None
    read: int | None
    acknowledged: int | None
    gone: int
    gone_done: int | None
    missing: int | None
    sent_to: int | None
    would_reach: int | None
    rounded_to: int = 1

    @property
    def is_sent(self) -> bool:
        return self.would_reach is None

    @property
    def is_exact(self) -> bool:
        return self.rounded_to == 1

    @property
    def is_suppressed(self) -> bool:
        """Whether nothing is told of how far people came."""
        return self.delivered is None

    @property
    def joined_later(self) -> int:
        """How many came into the audience after it was sent."""
        return max(0, self.targeted - (self.sent_to or 0)) if self.is_sent else 0

    @property
    def remaining(self) -> int:
        return self.targeted - self.gone

    @property
    def remaining_done(self) -> int | None:
        return None if self.missing is None else self.remaining - self.missing

    @property
    def is_complete(self) -> bool:
        """Whether everybody who is here has done it, as far as may be told."""
        return self.missing == 0 and self.remaining > 0

    def rate(self, step: str) -> float | None:
        """Share of the targeted people, 0 to 1; None where it would tell more than the figures do."""
        count = getattr(self, step)
        if count is None or not self.is_exact:
            return None
        return count / self.targeted if self.targeted else 0.0


def disclose_stats(totals: BroadcastTotals, *, per_recipient: bool) -> BroadcastStats:
    """Say what may be told: everything where figures of persons may be seen, else only what speaks of groups.

    Without `per_recipient` a step is told in whole groups, none below one group of people and none that would leave less
    than one: neither "nobody", "everybody" nor the last few can be told, and of fewer than two groups nothing. Coarse steps
    hide one person's reading also from who looks twice. What is missing, and how far those came who are no longer here, is
    not told at all: the difference to the whole, before and after one person leaves, would tell of that person.
    """
    steps = {step: getattr(totals.targeted, step) for step in FUNNEL_STEPS}
    if not per_recipient:
        steps = {step: round_to_group(count, totals.targeted.recipients) for step, count in steps.items()}
    return BroadcastStats(
        targeted=totals.targeted.recipients,
        **steps,
        gone=totals.gone.recipients,
        gone_done=totals.gone.count_done(requires_ack=totals.requires_ack) if per_recipient else None,
        missing=totals.missing if per_recipient else None,
        sent_to=totals.sent_to,
        would_reach=totals.would_reach,
        rounded_to=1 if per_recipient else MIN_GROUP_SIZE,
    )


def make_stats_without_receipts(sent_to: int | None) -> BroadcastStats:
    """What is left when the receipts of a broadcast are no longer kept: how many people it was sent to."""
    unknown_stats = dict.fromkeys((*FUNNEL_STEPS, "gone_done", "missing", "would_reach"))
    return BroadcastStats(targeted=sent_to or 0, gone=0, sent_to=sent_to, **unknown_stats)


def round_to_group(count: int, recipient_count: int) -> int | None:
    """`count` of `people` in whole groups, as a lower bound; None where the people are too few for two groups."""
    if recipient_count < 2 * MIN_GROUP_SIZE:
        return None
    return min(count, recipient_count - MIN_GROUP_SIZE) // MIN_GROUP_SIZE * MIN_GROUP_SIZE
