"""The last look before sending: who gets it and when, what is still wrong, and what the sender must do besides the click."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from werkzeug.datastructures import MultiDict

from broadcast.actions.audiences import resolve
from broadcast.base.cooperative import Breath
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.content import markdown
from broadcast.domain import clock, confirmation
from broadcast.domain.audience import Audience, Everyone, Except, Roles
from broadcast.domain.confirmation import Confirmation, Given
from broadcast.domain.message import Draft, Priority
from broadcast.store import audiences, mutes
from broadcast.store.models import Broadcast
from broadcast.streams.presence import PRESENCE
from broadcast.web.console.broadcasts import compose_form
from broadcast.web.core import text_diff
from broadcast.web.core.rendering import in_people

_TEXTS = {
    "title": "Title", "content": "Text", "priority": "Priority", "category": "Category", "people": "People",
    "roles": "Roles", "exceptRoles": "Roles left out", "exceptPeople": "People left out", "scheduledAt": "Send at",
    "expiresAt": "Ends at", "ackDueAt": "Acknowledge by", "targetType": "Audience",
    "label1": "First link", "url1": "Its address",
    "label2": "Second link", "url2": "Its address", "requiresAck": "Acknowledgement", "snapshot": "Snapshot",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """`people` and `online` now; `of_muted` says how many have muted such a message, and whether that counts.

    `words` name the audience; `error` says why it cannot be counted.
    """

    people: int = 0
    online: int = 0
    of_muted: str = ""
    words: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """`draft` is None while `errors` has something."""

    reach: Reach
    errors: dict[str, str] = field(default_factory=dict)
    draft: Draft | None = None
    confirmation: Confirmation = Confirmation()  # noqa: RUF009 - frozen


class Both(NamedTuple):
    """One field of two texts, and what turns theirs into mine."""

    name: str
    theirs: str
    mine: str
    parts: list[text_diff.Part]
    is_coarse: bool


def review(form: MultiDict[str, str]) -> Review:
    """Look at the whole form. Reads only, raises nothing for input."""
    counted = reach(form)
    try:
        draft = compose_form.read(form, now=clock.now())
        markdown.render(draft.content)
        resolve(draft.target)
    except Invalid as invalid:
        return Review(counted, compose_form.on_form(invalid, form).fields)
    if not counted.people:
        place = "roles" if form.get("targetType") == "ROLE" else "people"
        return Review(counted, {place: "Nobody is in this audience at present: this would reach nobody."})
    return Review(counted, {}, draft, confirmation.needed(draft, counted.people))


def reach(form: MultiDict[str, str]) -> Reach:
    """Whom the form reaches as it stands."""
    try:
        audience = resolve(compose_form.read_audience(form))
    except Invalid as invalid:
        return Reach(error=str(invalid))
    online = audiences.count(audience, among=PRESENCE.current.online_ids())
    return Reach(audiences.count(audience), online, _of_muted(audience, form), in_words(audience))


def _of_muted(audience: Audience, form: MultiDict[str, str]) -> str:
    """How many have muted what the form says, and whether that counts."""
    category = " ".join(form.get("category", "").replace("\0", "").split()) or None
    if (priority := form.get("priority") or Priority.NORMAL) == Priority.URGENT:
        return "Urgent: it alerts everybody, whatever they have muted."
    if priority not in set(Priority):
        return ""
    mandatory = SETTINGS.current.mandatory_categories
    if count := mutes.count(audience, priority=priority, category=category, mandatory=mandatory):
        what = f"{category} or this priority" if category else "this priority"
        return f"{in_people(count)} muted {what}: it is in their inbox, and does not alert them."
    return f"Nobody can mute {category}." if category in mandatory else ""


def given(form: MultiDict[str, str]) -> Given:
    """What the sender did besides the click, as the form says it."""
    typed = form.get("typedCount", "").replace(",", "").replace(" ", "").strip()
    is_number = typed.isascii() and typed.isdigit() and len(typed) < 19
    return Given(bool(form.get("understood")), int(typed) if is_number else None, form.get("password", ""))


def needs_review(broadcast: Broadcast) -> bool:
    """Whether a stored draft needs more than a click before it goes out."""
    if broadcast.typed is not None:
        return True
    is_for_all = broadcast.audience_kind == "everyone"
    people = audiences.count(audiences.of(broadcast))
    return not confirmation.needed_for(Priority(broadcast.priority), people, is_for_all=is_for_all).is_click


def in_words(audience: Audience) -> str:
    """The audience as a line of the review."""
    base = audience.base if isinstance(audience, Except) else audience
    match base:
        case Everyone():
            words = "Everyone"
        case Roles():
            words = (
                "All of the roles " if base.match_all else "Any of the roles " if len(base.names) > 1 else "The role "
            )
            words += ", ".join(sorted(base.names))
        case _:
            words = f"{in_people(len(base.ids))} by name"
    if isinstance(audience, Except):
        left_out = [f"the role {name}" for name in sorted(audience.roles)]
        left_out += [in_people(len(audience.ids)) + " by name"] if audience.ids else []
        words += ", without " + " and ".join(left_out)
    return words


def both(theirs: dict[str, Any], mine: dict[str, Any]) -> list[Both]:
    """The fields in which two forms differ. Lets other greenlets run."""
    pairs = [(name, _shown(theirs.get(key)), _shown(mine.get(key))) for key, name in _TEXTS.items()]
    differing, breath = [], Breath()
    for name, old, new in pairs:
        if old != new:
            differing.append(Both(name, old, new, *text_diff.compare(old, new)))
            breath.take()
    return differing


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value or "").replace("\r\n", "\n")
