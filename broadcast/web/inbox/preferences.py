"""The preferences page: what to be alerted of and when, how it looks, keys. Works without JavaScript."""

from datetime import timedelta
from zoneinfo import ZoneInfo, available_timezones

from flask import Blueprint, redirect, request, url_for

from broadcast.actions import preferences as actions
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, time_zones
from broadcast.domain.preferences import Preferences
from broadcast.store import inbox, users
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page

blueprint = Blueprint("preferences", __name__, url_prefix="/preferences")

_PAUSES = {"30": timedelta(minutes=30), "60": timedelta(hours=1)}


@blueprint.get("", strict_slashes=False)
@allow("person")
def show():
    return _page(users.preferences(me().id).as_json(), {}, saved="saved" in request.args)


@blueprint.post("", strict_slashes=False)
@allow("person")
def save():
    typed = _typed()
    try:
        actions.save(typed, by=me().actor, now=clock.now())
    except Invalid as invalid:
        return _page(typed, invalid.fields), 422
    return redirect(url_for("preferences.show", saved=1), 303)


@blueprint.post("/pause")
@allow("person")
def pause():
    """Do not disturb for a while, or no longer: `for` is 30, 60 (minutes), tomorrow or off."""
    now, wanted = clock.now(), users.preferences(me().id)
    until = _until(request.form.get("for", ""), wanted)
    actions.save(wanted.as_json() | {"doNotDisturbUntil": clock.to_wire(until)}, by=me().actor, now=now)
    return redirect(url_for("preferences.show", saved=1), 303)


def _until(name: str, wanted: Preferences):
    now = clock.now()
    if name == "off":
        return None
    if name == "tomorrow":
        return time_zones.preset("tomorrow", now, _zone(wanted))
    if name not in _PAUSES:
        raise Invalid({"for": "Choose for how long."})
    return now + _PAUSES[name]


def _zone(wanted: Preferences) -> ZoneInfo:
    try:
        return time_zones.zone_of(wanted.time_zone, request.form.get("timeZone", ""))
    except ValueError as problem:
        raise Invalid({"timeZone": str(problem)}) from None


def _typed() -> dict:
    """The form as `domain.preferences.read` takes it; a pause is left as it is."""
    form = request.form
    until = users.preferences(me().id).do_not_disturb_until
    until = until if until and until > clock.now() else None
    quiet = {"from": form.get("from", ""), "to": form.get("to", "")} if form.get("quiet") else None
    return {
        "mutedCategories": form.getlist("muted"),
        "minimumPriority": form.get("minimumPriority", "LOW"),
        "quietHours": quiet,
        "timeZone": form.get("timeZone", ""),
        "doNotDisturbUntil": clock.to_wire(until),
        "theme": form.get("theme", "system"),
        "desktop": bool(form.get("desktop")),
        "sound": bool(form.get("sound")),
        "keys": bool(form.get("keys")),
        "reading": form.get("reading", "automatic"),
    }


def _page(typed: dict, problems: dict[str, str], *, saved: bool = False) -> str:
    mandatory = SETTINGS.current.mandatory_categories
    found = inbox.categories(me().actor.viewer, now=clock.now())
    categories = sorted({*found, *typed["mutedCategories"], *mandatory})
    held_until = users.preferences(me().id).held_until(clock.now())
    return page(
        "inbox/preferences.html",
        form=typed,
        problems=problems,
        saved=saved,
        categories=categories,
        mandatory=mandatory,
        held_until=held_until,
        zones=sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/")),
    )
