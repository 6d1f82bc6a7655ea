"""What a rule would make of the newest real events of its sources. Reads only: nothing is published, counted or kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from broadcast.actions import inbound_events
from broadcast.actions.inbound_batch import PreparedInboundEvent
from broadcast.domain.event_source import EventOwner, canonicalize_source
from broadcast.domain.inbound import InboundEvent
from broadcast.ingest import contract
from broadcast.ingest.rules import NoMatchingRule, Rule, Rules, find_rule
from broadcast.store import event_sources, users
from broadcast.store.models.ingest import InboundEventSample

MAX_SAMPLES = 20  # events that are tried


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """One event, when it came, and what would be written of it: a card with its reach, or a refusal."""

    at: datetime
    source: str
    prepared: PreparedInboundEvent


def try_rule(rules: Rules, number: int) -> list[DryRunResult]:
    """Read the newest events for which rule `number` (from 1) holds anew, each as of the moment at which it came."""
    rule = rules[number - 1]
    covered_samples = (
        sample for sample in event_sources.iterate_samples(get_rule_sources(rule)) if _is_covered(rules, rule, sample)
    )
    samples = list(islice(covered_samples, MAX_SAMPLES))
    prepared = inbound_events.prepare([_read_sample(sample, rules) for sample in samples])
    return [DryRunResult(sample.at, sample.source, one) for sample, one in zip(samples, prepared, strict=True)]


def get_rule_sources(rule: Rule) -> Sequence[str]:
    """The sources whose newest events are kept and which the rule is for."""
    return [
        source for source in event_sources.list_sampled_sources() if rule.matches_source(canonicalize_source(source))
    ]


def _read_sample(sample: InboundEventSample, rules: Rules) -> InboundEvent:
    record = event_sources.to_record(sample)
    return InboundEvent(record, contract.read_command(record, now=sample.at, rules=rules, owner=_get_owner(sample)))


def _is_covered(rules: Rules, rule: Rule, sample: InboundEventSample) -> bool:
    envelope = contract.try_open_envelope(event_sources.to_record(sample))
    if envelope is None:
        return False
    try:
        return (
            find_rule(rules, source=envelope.source, topic=envelope.topic, type=envelope.type, owner=_get_owner(sample))
            is rule
        )
    except NoMatchingRule:
        return rule.matches_event(source=envelope.source, topic=envelope.topic, type=envelope.type)


def _get_owner(sample: InboundEventSample) -> EventOwner:
    """Who sent it, under the name that they have now."""
    if sample.topic is not None:
        return EventOwner.for_topic(sample.topic)
    kind, _, number = (sample.owner or "").partition(":")
    user = users.get(int(number)) if kind == "account" and number else None
    return EventOwner.for_account(user.id, user.username) if user else EventOwner("", "")
