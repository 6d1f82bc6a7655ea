"""What a rule would make of the newest real events of its sources. Reads only: nothing is published, counted or kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from broadcast.actions import inbound_events
from broadcast.actions.inbound_batch import Ready
from broadcast.domain.event_source import Owner, canonical
from broadcast.domain.inbound import Arrival
from broadcast.ingest import contract
from broadcast.ingest.rules import NotCovered, Rule, Rules, rule_for
from broadcast.store import event_sources, users
from broadcast.store.models.ingest import EventSample

MOST = 20  # events that are tried


@dataclass(frozen=True, slots=True)
class Tried:
    """One event, when it came, and what would be written of it: a card with its reach, or a refusal."""

    at: datetime
    source: str
    ready: Ready


def try_rule(rules: Rules, number: int) -> list[Tried]:
    """Read the newest events for which rule `number` (from 1) holds anew, each as of the moment at which it came."""
    rule = rules[number - 1]
    held_by = (sample for sample in event_sources.samples(sources_of(rule)) if _holds(rules, rule, sample))
    samples = list(islice(held_by, MOST))
    ready = inbound_events.prepare([_arrival(sample, rules) for sample in samples])
    return [Tried(sample.at, sample.source, one) for sample, one in zip(samples, ready, strict=True)]


def sources_of(rule: Rule) -> Sequence[str]:
    """The sources whose newest events are kept and which the rule is for."""
    return [source for source in event_sources.sampled_sources() if rule.fits_source(canonical(source))]


def _arrival(sample: EventSample, rules: Rules) -> Arrival:
    record = event_sources.record_of(sample)
    return Arrival(record, contract.read(record, now=sample.at, rules=rules, owner=_owner(sample)))


def _holds(rules: Rules, rule: Rule, sample: EventSample) -> bool:
    envelope = contract.envelope_of(event_sources.record_of(sample))
    if envelope is None:
        return False
    try:
        return (
            rule_for(rules, source=envelope.source, topic=envelope.topic, type=envelope.type, owner=_owner(sample))
            is rule
        )
    except NotCovered:
        return rule.fits_event(source=envelope.source, topic=envelope.topic, type=envelope.type)


def _owner(sample: EventSample) -> Owner:
    """Who sent it, under the name that they have now."""
    if sample.topic is not None:
        return Owner.topic(sample.topic)
    kind, _, number = (sample.owner or "").partition(":")
    user = users.by_id(int(number)) if kind == "account" and number else None
    return Owner.account(user.id, user.username) if user else Owner("", "")
