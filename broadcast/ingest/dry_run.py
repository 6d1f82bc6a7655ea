"""Dry run: what a rule would make of the newest real events of its sources. Read-only: publishes and counts nothing."""

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

MAX_SAMPLES = 20  # events per dry run


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """One event, when it arrived, and its result: a card with its recipient count, or a rejection."""

    at: datetime
    source: str
    prepared: PreparedInboundEvent


def try_rule(rules: Rules, number: int) -> list[DryRunResult]:
    """Read the newest events of rule `number` (from 1) again, each as of its time of arrival."""
    rule = rules[number - 1]
    covered_samples = (
        sample for sample in event_sources.iterate_samples(get_rule_sources(rule)) if _is_covered(rules, rule, sample)
    )
    samples = list(islice(covered_samples, MAX_SAMPLES))
    prepared = inbound_events.prepare([_read_sample(sample, rules) for sample in samples])
    return [DryRunResult(sample.at, sample.source, one) for sample, one in zip(samples, prepared, strict=True)]


def get_rule_sources(rule: Rule) -> Sequence[str]:
    """The sources with stored events that the rule matches."""
    sources = event_sources.list_sampled_sources()
    return [source for source in sources if rule.matches_source(canonicalize_source(source))]


def _read_sample(sample: InboundEventSample, rules: Rules) -> InboundEvent:
    record = event_sources.to_record(sample)
    owner = _get_event_owner(sample)
    return InboundEvent(record, contract.read_command(record, now=sample.at, rules=rules, owner=owner))


def _is_covered(rules: Rules, rule: Rule, sample: InboundEventSample) -> bool:
    envelope = contract.try_open_envelope(event_sources.to_record(sample))
    if envelope is None:
        return False
    event = {"source": envelope.source, "topic": envelope.topic, "type": envelope.type}
    try:
        return find_rule(rules, **event, owner=_get_event_owner(sample)) is rule
    except NoMatchingRule:
        return rule.matches_event(**event)


def _get_event_owner(sample: InboundEventSample) -> EventOwner:
    """The sender, under its current name."""
    if sample.topic is not None:
        return EventOwner.for_topic(sample.topic)
    kind, _, number = (sample.owner or "").partition(":")
    user = users.get(int(number)) if kind == "account" and number else None
    return EventOwner.for_account(user.id, user.username) if user else EventOwner("", "")
