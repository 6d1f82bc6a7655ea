"""Live connections: who is connected, to which worker, since when, and how far behind."""

from flask import Blueprint, current_app, redirect, request, url_for

from broadcast.actions import announce
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.errors import Invalid
from broadcast.store import people
from broadcast.web.identity import allow
from broadcast.web.render import page

blueprint = Blueprint("connections", __name__)

CONNECTIONS = 200  # streams listed on one page, the newest first


@blueprint.get("/connections")
@allow(Permission.SEE)
def connections():
    """Who is connected, to which worker, since when, and how far behind."""
    presence = current_app.extensions["presence"]
    streams = sorted(presence.streams(), key=lambda stream: stream.since, reverse=True)
    shown = streams[:CONNECTIONS]
    names = people.names([stream.user_id for stream in shown])
    listed = [
        {
            "stream": stream,
            "person": names.get(stream.user_id, f"person {stream.user_id}"),
            "since": clock.from_wire(stream.since),
        }
        for stream in shown
    ]
    figures = {
        "streams": len(streams),
        "people": len({s.user_id for s in streams}),
        "workers": len({s.worker for s in streams}),
    }
    return page("console/connections.html", rows=listed, figures=figures)


@blueprint.post("/connections/<connection_id>/close")
@allow(Permission.OPERATE)
def close_connection(connection_id: str):
    """Close one stream, wherever it is. Its page comes back by itself: this is for a stream that hangs."""
    user_id = request.form.get("userId", "")
    if not (user_id.isascii() and user_id.isdigit() and len(user_id) < 19):
        raise Invalid({"userId": "Which person's stream it is must be told."})
    announce.disconnect(int(user_id), connection_id[:100])
    return redirect(url_for("console.connections.connections"), 303)
