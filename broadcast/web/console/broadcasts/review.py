"""The review before sending: recipients, time, errors, and the confirmation that the sender must give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import MultiDict

from broadcast.actions.audiences import resolve_audience
from broadcast.actions.escalation_policies import check_choice
from broadcast.base.errors import Invalid
from broadcast.base.numbers import parse_number
from broadcast.channels.reach import LadderReach, Unreached, list_unreached, measure_reach
from broadcast.config.settings import SETTINGS
from broadcast.content import markdown
from broadcast.domain import clock, confirmation
from broadcast.domain.audience import Audience, EveryoneAudience, ExclusionAudience, RoleAudience
from broadcast.domain.confirmation import ConfirmationInput, ConfirmationRequirement
from broadcast.domain.escalation import select_policy
from broadcast.domain.message import Draft, Priority
from broadcast.domain.permissions import Permission
from broadcast.store import audiences, escalation_policies, users
from broadcast.store.models import Broadcast
from broadcast.streams.presence import PRESENCE
from broadcast.web.console.broadcasts import compose_form
from broadcast.web.core.identity import current_identity
from broadcast.web.core.rendering import format_people_count
from broadcast.web.core.text_diff import FieldDiff, compare_fields

_MAX_UNREACHED_SHOWN = 200
_FIELD_LABELS = {
    "title": "Title", "content": "Text", "priority": "Priority", "category": "Category", "people": "People",
    "roles": "Roles", "exceptRoles": "Excluded roles", "exceptPeople": "Excluded people", "scheduledAt": "Send at",
    "expiresAt": "Ends at", "ackDueAt": "Acknowledge by", "targetType": "Audience",
    "label1": "Button 1 label", "url1": "Button 1 URL",
    "label2": "Button 2 label", "url2": "Button 2 URL", "requiresAck": "Acknowledgement", "snapshot": "Snapshot",
    "escalation": "Escalation",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """`people` and `online` are counted now. `muted_note` says how many have muted such a message, and whether that
    counts; `error` says why the audience cannot be counted.
    """

    people: int = 0
    online: int = 0
    muted_note: str = ""
    audience_description: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """`draft` is None if there are `errors`."""

    reach: Reach
    errors: dict[str, str] = field(default_factory=dict)
    draft: Draft | None = None
    confirmation: ConfirmationRequirement = ConfirmationRequirement()  # noqa: RUF009 - frozen
    ladder: LadderReach | None = None  # None: nothing more happens
    unreached: Sequence[Unreached] = ()  # the first of them, for who may see people


def build_review(form: MultiDict[str, str]) -> Review:
    """Review the whole form. Reads only; never raises for input."""
    counted_reach = count_reach(form)
    try:
        draft = compose_form.parse_form(form, now=clock.now())
        markdown.render(draft.content)
        audience = resolve_audience(draft.target)
        check_choice(draft.escalation)
    except Invalid as invalid:
        return Review(counted_reach, compose_form.map_to_form_fields(invalid, form).fields)
    if not counted_reach.people:
        field_name = "roles" if form.get("targetType") == "ROLE" else "people"
        return Review(counted_reach, {field_name: "There is nobody in this audience now. Choose another audience."})
    requirement = confirmation.get_requirement(draft, counted_reach.people)
    policy = select_policy(draft.escalation, draft.priority, escalation_policies.list_policies())
    if policy is None:
        return Review(counted_reach, {}, draft, requirement)
    ladder, unreached = measure_reach(policy, audience, draft), []
    if ladder.unreached and current_identity().actor.may(Permission.PEOPLE):
        unreached = list_unreached(policy, audience, draft, limit=_MAX_UNREACHED_SHOWN)
    return Review(counted_reach, {}, draft, requirement, ladder, unreached)


def count_reach(form: MultiDict[str, str]) -> Reach:
    try:
        audience = resolve_audience(compose_form.read_audience(form))
    except Invalid as invalid:
        return Reach(error=str(invalid))
    online = audiences.count(audience, among_ids=PRESENCE.current.get_online_ids())
    return Reach(audiences.count(audience), online, _describe_muted(audience, form), describe_audience(audience))


def _describe_muted(audience: Audience, form: MultiDict[str, str]) -> str:
    category = " ".join(form.get("category", "").replace("\0", "").split()) or None
    if (priority := form.get("priority") or Priority.NORMAL) == Priority.URGENT:
        return "Urgent: alerts everyone, even people who have muted it."
    if priority not in set(Priority):
        return ""
    mandatory = SETTINGS.current.mandatory_categories
    if count := users.count_muted(audience, priority=priority, category=category, mandatory_categories=mandatory):
        muted_kinds = f"{category} or this priority" if category else "this priority"
        return f"{format_people_count(count)} muted {muted_kinds}: they get it in their inbox without an alert."
    return f"Nobody can mute {category}." if category in mandatory else ""


def read_confirmation(form: MultiDict[str, str]) -> ConfirmationInput:
    typed = form.get("typedCount", "").replace(",", "").replace(" ", "").strip()
    return ConfirmationInput(bool(form.get("understood")), parse_number(typed), form.get("password", ""))


def needs_review(broadcast: Broadcast) -> bool:
    """Whether a stored draft needs confirmation before it is sent."""
    if broadcast.typed is not None:
        return True
    is_for_all, count = broadcast.audience_kind == "everyone", audiences.count(audiences.get_audience(broadcast))
    requirement = confirmation.get_requirement_for(Priority(broadcast.priority), count, is_for_everyone=is_for_all)
    return not requirement.is_click_enough


def describe_audience(audience: Audience) -> str:
    base = audience.base if isinstance(audience, ExclusionAudience) else audience
    match base:
        case EveryoneAudience():
            description = "Everyone"
        case RoleAudience():
            several = "All of the roles" if base.match_all else "Any of the roles"
            prefix = several if base.match_all or len(base.names) > 1 else "The role"
            description = f"{prefix} {', '.join(sorted(base.names))}"
        case _:
            description = f"{format_people_count(len(base.ids))} by name"
    if isinstance(audience, ExclusionAudience):
        exclusions = [f"the role {name}" for name in sorted(audience.roles)]
        exclusions += [format_people_count(len(audience.ids)) + " by name"] if audience.ids else []
        description += ", except " + " and ".join(exclusions)
    return description


def diff_forms(theirs: dict[str, Any], mine: dict[str, Any]) -> list[FieldDiff]:
    """The fields in which two forms differ. Lets other greenlets run."""
    return compare_fields(
        (name, _to_displayed_text(theirs.get(key)), _to_displayed_text(mine.get(key)))
        for key, name in _FIELD_LABELS.items()
    )


def _to_displayed_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value or "").replace("\r\n", "\n")
