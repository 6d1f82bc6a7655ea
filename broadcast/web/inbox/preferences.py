"""The preferences page: alerts, quiet hours, appearance, shortcut keys. Works without JavaScript."""

from datetime import timedelta
from zoneinfo import ZoneInfo, available_timezones

from flask import Blueprint, request

from broadcast.actions import accounts
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, time_zones
from broadcast.domain.preferences import Preferences
from broadcast.store import users
from broadcast.store.inbox import Inbox
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page

blueprint = Blueprint("preferences", __name__, url_prefix="/preferences")

_PAUSE_LENGTHS = {"30": timedelta(minutes=30), "60": timedelta(hours=1)}


@blueprint.get("", strict_slashes=False)
@allow("person")
def show():
    return _render_preferences(users.get_preferences(current_identity().id).to_json(), {})


@blueprint.post("", strict_slashes=False)
@allow("person")
def save():
    typed = _read_form()
    try:
        accounts.save_preferences(typed, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        return _render_preferences(typed, invalid.fields), 422
    return redirect_to("preferences.show", saved=1)


@blueprint.post("/pause")
@allow("person")
def pause():
    """Pause alerts or end the pause: `for` is 30, 60 (minutes), tomorrow or off."""
    now, user_preferences = clock.now(), users.get_preferences(current_identity().id)
    until = _read_pause_end(request.form.get("for", ""), user_preferences)
    accounts.save_preferences(
        user_preferences.to_json() | {"doNotDisturbUntil": clock.to_rfc3339(until)},
        by=current_identity().actor,
        now=now,
    )
    return redirect_to("preferences.show", saved=1)


def _read_pause_end(choice: str, user_preferences: Preferences):
    now = clock.now()
    if choice == "off":
        return None
    if choice == "tomorrow":
        return time_zones.resolve_snooze_preset("tomorrow", now, _read_zone(user_preferences))
    if choice not in _PAUSE_LENGTHS:
        raise Invalid({"for": "Choose for how long."})
    return now + _PAUSE_LENGTHS[choice]


def _read_zone(user_preferences: Preferences) -> ZoneInfo:
    try:
        return time_zones.resolve_zone(user_preferences.time_zone, request.form.get("timeZone", ""))
    except ValueError as problem:
        raise Invalid({"timeZone": str(problem)}) from None


def _read_form() -> dict:
    """The form as `domain.preferences.parse_preferences` expects it; a pause is unchanged."""
    form = request.form
    until = users.get_preferences(current_identity().id).do_not_disturb_until
    until = until if until and until > clock.now() else None
    quiet_hours = {"from": form.get("from", ""), "to": form.get("to", "")} if form.get("quiet") else None
    return {
        "mutedCategories": form.getlist("muted"),
        "minimumPriority": form.get("minimumPriority", "LOW"),
        "quietHours": quiet_hours,
        "timeZone": form.get("timeZone", ""),
        "doNotDisturbUntil": clock.to_rfc3339(until),
        "theme": form.get("theme", "system"),
        "desktop": bool(form.get("desktop")),
        "sound": bool(form.get("sound")),
        "keys": bool(form.get("keys")),
        "reading": form.get("reading", "automatic"),
        "email": form.get("email", "LOW"),
        "push": form.get("push", "LOW"),
        "digest": form.get("digest", "off"),
        "digestTime": form.get("digestTime", "08:00"),
    }


def _render_preferences(typed: dict, problems: dict[str, str]) -> str:
    mandatory = SETTINGS.current.mandatory_categories
    used_categories = Inbox(current_identity().actor.viewer, clock.now()).list_categories()
    categories = sorted({*used_categories, *typed["mutedCategories"], *mandatory})
    held_until = users.get_preferences(current_identity().id).get_quiet_end(clock.now())
    return render_page(
        "inbox/preferences.html",
        form=typed,
        problems=problems,
        saved="saved" in request.args,
        categories=categories,
        mandatory=mandatory,
        held_until=held_until,
        zones=sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/")),
    )
