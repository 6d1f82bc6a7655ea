"""The page Channels: for each of them whether messages get out, what waits, what failed, and when it is used."""

from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, request

from broadcast.actions import channels as actions
from broadcast.base.errors import NotFound
from broadcast.channels.email import EMAIL
from broadcast.channels.protocol import Accepted, Channel
from broadcast.channels.registry import CHANNELS
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import deliveries
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import parse_ids, read_choice

blueprint = Blueprint("channels", __name__)

_MAX_FAILED, _MAX_KEPT_MAILS = 50, 20
_PERIOD = timedelta(hours=24)


@blueprint.get("/channels")
@allow(Permission.OPERATE)
def index():
    now, folder = clock.now(), EMAIL.current.folder
    return render_page(
        "console/channels.html",
        channels=[_describe_channel(channel, now) for channel in CHANNELS.current.values()],
        server=SETTINGS.current.smtp_server,
        folder=folder and folder.path,
        mails=folder.list_newest(_MAX_KEPT_MAILS) if folder else [],
    )


@blueprint.post("/channels/<name>/pause")
@allow(Permission.OPERATE)
def pause(name: str):
    channel = _get_channel_or_404(name)
    is_paused = read_choice("do", ("pause", "resume"), "pause") == "pause"
    actions.set_paused(channel.name, is_paused, by=current_identity().actor, now=clock.now())
    verb = "is paused. Everything waits in the queue." if is_paused else "is sent again."
    return redirect_to("console.channels.index", f"{channel.label} {verb}")


@blueprint.post("/channels/<name>/retry")
@allow(Permission.OPERATE)
def retry(name: str):
    """Retry the deliveries that the page listed, or one of them."""
    ids = parse_ids(request.form.getlist("ids"))
    count = actions.retry_failed(_get_channel_or_404(name).name, ids, by=current_identity().actor, now=clock.now())
    return redirect_to("console.channels.index", f"{count} put back into the queue.")


@blueprint.post("/channels/<name>/test")
@allow(Permission.OPERATE)
def send_test(name: str):
    """Send a test to the addresses of whoever asks, and report what the servers said."""
    channel, identity = _get_channel_or_404(name), current_identity()
    addresses = channel.load_addresses([identity.id]).get(identity.id, ())
    if not addresses:
        return redirect_to("console.channels.index", "You have no address that works. Add one under My account.")
    outcomes = [channel.send_test(address, identity.name) for address in addresses]
    reasons = [outcome.reason for outcome in outcomes if not isinstance(outcome, Accepted)]
    return redirect_to("console.channels.index", f"The test failed. {reasons[0]}" if reasons else "The test was sent.")


def _get_channel_or_404(name: str) -> Channel:
    try:
        return CHANNELS.current[name]
    except KeyError:
        raise NotFound("There is no such channel.") from None


def _describe_channel(channel: Channel, now: datetime) -> dict[str, Any]:
    return {
        "name": channel.name,
        "label": channel.label,
        "state": deliveries.get_settings(channel.name),
        "queue": deliveries.measure_queue(channel.name, now=now),
        "outcomes": deliveries.count_outcomes(channel.name, since=now - _PERIOD),
        "failed": deliveries.list_failed(channel.name, limit=_MAX_FAILED),
    }
