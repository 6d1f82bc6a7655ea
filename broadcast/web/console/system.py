"""The running system: the health page with the doctor's findings, and the live connections of all workers."""

from flask import Blueprint, current_app, request

from broadcast.actions import notify
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.maintenance import doctor
from broadcast.store import users
from broadcast.streams.hub import HUB
from broadcast.streams.presence import PRESENCE
from broadcast.web.core.identity import allow
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import require_number
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("system", __name__)

MAX_STREAMS_SHOWN = 200  # on one page, newest first
_SEVERITY_ORDER = ("failure", "warning", "ok")


@blueprint.get("/health")
@allow(Permission.OPERATE)
def health():
    """The page itself tests whether a proxy buffers streams: only the browser can see that."""
    findings = doctor.run_checks(current_app._get_current_object())
    findings.sort(key=lambda finding: _SEVERITY_ORDER.index(finding.state))
    runtime, hub = RUNTIME.current, HUB.current
    return render_page(
        "console/health.html",
        findings=findings,
        problems=sorted(runtime.problems.items()),
        streams=len(hub),
        head=hub.head,
        bus=runtime.bus,
    )


@blueprint.get("/connections")
@allow(Permission.SEE)
def connections():
    """Who is connected, to which worker, since when, and how far behind."""
    streams = sorted(PRESENCE.current.list_streams(), key=lambda stream: stream.since, reverse=True)
    displayed = streams[:MAX_STREAMS_SHOWN]
    names = users.get_names([stream.user_id for stream in displayed])
    rows = [
        (stream, names.get(stream.user_id, f"person {stream.user_id}"), clock.parse_rfc3339(stream.since))
        for stream in displayed
    ]
    counts = {"streams": len(streams)}
    counts |= {"people": len({s.user_id for s in streams}), "workers": len({s.worker for s in streams})}
    return render_page("console/connections.html", rows=rows, figures=counts)


@blueprint.post("/connections/<connection_id>/close")
@allow(Permission.OPERATE)
def close_connection(connection_id: str):
    """Close one stream, in any worker. Its page reconnects: this is for a stream that hangs."""
    problem = "The request does not say whose stream to close. Refresh the page and try again."
    user_id = require_number(request.form.get("userId"), "userId", problem)
    notify.request_disconnect(user_id, connection_id[:100])
    return redirect_to("console.system.connections")
