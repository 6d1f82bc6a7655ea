"""The page Channels: whether e-mail gets out, what waits, what failed, and when it is used."""

from datetime import timedelta

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from broadcast.actions import channels as actions
from broadcast.base.errors import Invalid
from broadcast.base.numbers import parse_number
from broadcast.channels.email import EMAIL, EmailChannel
from broadcast.channels.protocol import Accepted
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import deliveries, email_addresses
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import parse_ids, read_choice

blueprint = Blueprint("channels", __name__)

_MAX_FAILED, _MAX_KEPT_MAILS = 50, 20
_PERIOD = timedelta(hours=24)


@blueprint.get("/channels")
@allow(Permission.OPERATE)
def index():
    seconds_by_priority = deliveries.get_settings(EmailChannel.name).delays
    return _render({name: f"{seconds / 60:g}" for name, seconds in seconds_by_priority.items()}, {})


@blueprint.post("/channels/delays")
@allow(Permission.OPERATE)
def save_delays():
    typed = {priority.value: request.form.get(priority.value, "").strip() for priority in Priority}
    minutes = {priority: _read_minutes(typed[priority.value]) for priority in Priority}
    try:
        actions.set_delays(EmailChannel.name, minutes, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        return _render(typed, invalid.fields), invalid.status
    return redirect_to("console.channels.index", "Saved. It applies to what is sent from now on.")


@blueprint.post("/channels/pause")
@allow(Permission.OPERATE)
def pause():
    is_paused = read_choice("do", ("pause", "resume"), "pause") == "pause"
    actions.set_paused(EmailChannel.name, is_paused, by=current_identity().actor, now=clock.now())
    notice = "E-mail is paused. Everything waits in the queue." if is_paused else "E-mail is sent again."
    return redirect_to("console.channels.index", notice)


@blueprint.post("/channels/retry")
@allow(Permission.OPERATE)
def retry():
    """Retry the deliveries that the page listed, or one of them."""
    ids = parse_ids(request.form.getlist("ids"))
    count = actions.retry_failed(EmailChannel.name, ids, by=current_identity().actor, now=clock.now())
    return redirect_to("console.channels.index", f"{count} put back into the queue.")


@blueprint.post("/channels/test")
@allow(Permission.OPERATE)
def send_test():
    """Send a mail to whoever asks, and report what the mail server said."""
    identity = current_identity()
    known = email_addresses.get(identity.id)
    if known is None or known.address is None:
        return redirect_to("console.channels.index", "You have no address yet. Add one under My account.")
    outcome = EMAIL.current.send_test(known.address, identity.name)
    notice = f"Sent to {known.address}." if isinstance(outcome, Accepted) else f"The test failed. {outcome.reason}"
    return redirect_to("console.channels.index", notice)


def _read_minutes(text: str) -> int | None:
    """The minutes typed; None for nothing, -1 for what is no number."""
    if not text:
        return None
    number = parse_number(text)
    return -1 if number is None else number


def _render(typed: dict[str, str], errors: dict[str, str]) -> ResponseReturnValue:
    now, folder = clock.now(), EMAIL.current.folder
    own_address = email_addresses.get(current_identity().id)
    return render_page(
        "console/channels.html",
        typed=typed,
        errors=errors,
        state=deliveries.get_settings(EmailChannel.name),
        queue=deliveries.measure_queue(EmailChannel.name, now=now),
        outcomes=deliveries.count_outcomes(EmailChannel.name, since=now - _PERIOD),
        failed=deliveries.list_failed(EmailChannel.name, limit=_MAX_FAILED),
        server=SETTINGS.current.smtp_server,
        folder=folder and folder.path,
        mails=folder.list_newest(_MAX_KEPT_MAILS) if folder else [],
        own_address=own_address and own_address.address,
    )
