"""What the statistics of a broadcast mean. One definition for page, CSV, API, list, overview and reminder.

- **Targeted**: everybody who could see it at some time between its sending and its end, and everybody it reached.
- **Delivered, seen, read, acknowledged**: of the targeted. A later step implies the earlier ones. What was read before
  the broadcast was shown again does not count as read; an acknowledgement of an earlier revision than the required one
  does not count as acknowledged.
- **No longer here**: targeted, but disabled or no longer in the audience. Their receipts stay; nothing more is asked.
- **Missing**: targeted, still here, and not done. Done means acknowledged where that is asked for, else read.

So targeted = done and here + missing + no longer here, always. A broadcast that has not been sent has targeted nobody;
it *would reach* users.

Where statistics must not reveal individuals, `disclose_stats` alone decides what is shown.
"""

from dataclasses import dataclass

# The smallest group that a number may describe. Five is the minimum of statistical offices for a table cell; with
# fewer, anyone who knows the others knows the one.
MIN_GROUP_SIZE = 5
FUNNEL_STEPS = ("delivered", "seen", "read", "acknowledged")


@dataclass(frozen=True, slots=True)
class FunnelCounts:
    """Distinct users, and how many reached each step; never more at a step than at the one before."""

    recipients: int = 0
    delivered: int = 0
    seen: int = 0
    read: int = 0
    acknowledged: int = 0


@dataclass(frozen=True, slots=True)
class BroadcastTotals:
    """All counts of a broadcast, and of those no longer here. `sent_to` is None until sent, `would_reach` after."""

    targeted: FunnelCounts
    gone: FunnelCounts
    requires_ack: bool
    sent_to: int | None
    would_reach: int | None

    def count_done(self, counts: FunnelCounts) -> int:
        return counts.acknowledged if self.requires_ack else counts.read

    @property
    def missing(self) -> int:
        remaining_done = self.count_done(self.targeted) - self.count_done(self.gone)
        return self.targeted.recipients - self.gone.recipients - remaining_done


@dataclass(frozen=True, slots=True)
class BroadcastStats:
    """What may be shown of the totals; None is withheld. With `rounded_to` above 1, steps are rounded down."""

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
        """Whether the steps are withheld."""
        return self.delivered is None

    @property
    def joined_later(self) -> int:
        """How many users joined the audience after it was sent."""
        return max(0, self.targeted - (self.sent_to or 0)) if self.is_sent else 0

    @property
    def remaining(self) -> int:
        return self.targeted - self.gone

    @property
    def remaining_done(self) -> int | None:
        return None if self.missing is None else self.remaining - self.missing

    @property
    def is_complete(self) -> bool:
        """Whether every user who is still here has done it, as far as may be shown."""
        return self.missing == 0 and self.remaining > 0

    def rate(self, step: str) -> float | None:
        """Share of the targeted users, 0 to 1; None where it would reveal more than the counts do."""
        count = getattr(self, step)
        if count is None or not self.is_exact:
            return None
        return count / self.targeted if self.targeted else 0.0


def disclose_stats(totals: BroadcastTotals, *, per_recipient: bool) -> BroadcastStats:
    """The statistics that may be shown: all of them, or without `per_recipient` only those about groups.

    Without `per_recipient`, each step is a lower bound in whole groups, at most the total less one group: it never says
    "nobody", "everybody" or the last few, and below two groups it is withheld. Coarse steps also hide one user's
    reading from someone who looks twice. Missing, and the steps of those no longer here, are withheld: the difference
    before and after one user leaves would reveal that user's step.
    """
    steps = {step: getattr(totals.targeted, step) for step in FUNNEL_STEPS}
    if not per_recipient:
        steps = {step: round_to_group(count, totals.targeted.recipients) for step, count in steps.items()}
    return BroadcastStats(
        targeted=totals.targeted.recipients,
        **steps,
        gone=totals.gone.recipients,
        gone_done=totals.count_done(totals.gone) if per_recipient else None,
        missing=totals.missing if per_recipient else None,
        sent_to=totals.sent_to,
        would_reach=totals.would_reach,
        rounded_to=1 if per_recipient else MIN_GROUP_SIZE,
    )


def make_stats_without_receipts(sent_to: int | None) -> BroadcastStats:
    """What is left when a broadcast's receipts were deleted: how many recipients it was sent to."""
    unknown_stats = dict.fromkeys((*FUNNEL_STEPS, "gone_done", "missing", "would_reach"))
    return BroadcastStats(targeted=sent_to or 0, gone=0, sent_to=sent_to, **unknown_stats)


def round_to_group(count: int, recipient_count: int) -> int | None:
    """`count` of `recipient_count`, rounded down to whole groups; None if there are fewer than two groups."""
    if recipient_count < 2 * MIN_GROUP_SIZE:
        return None
    return min(count, recipient_count - MIN_GROUP_SIZE) // MIN_GROUP_SIZE * MIN_GROUP_SIZE
