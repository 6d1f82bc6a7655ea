"""What a request for a stream asks, and what happens once it is known who asks: the same on both paths."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broadcast.base.errors import Forbidden
from broadcast.streams.connection import Connection
from broadcast.streams.hub import HUB
from broadcast.streams.opening import Subscriber, open_stream
from broadcast.web.core.authentication import Identity

INBOX_PATH, API_PATH = "/inbox/stream", "/api/sse/connect"
ENDPOINTS = {INBOX_PATH: "stream.inbox_stream", API_PATH: "stream.connect"}
_MAX_LABEL_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A GET of one of the two paths. `address` is the client's, `site` the header Sec-Fetch-Site."""

    path: str
    args: Mapping[str, str]
    address: str
    last_event_id: str | None
    site: str | None

    def check(self, identity: Identity) -> None:
        """Raises Forbidden when this user may not open this stream from this page."""
        if self.path == API_PATH and self.args.get("userId", str(identity.id)) != str(identity.id):
            raise Forbidden("You can only open your own stream.")
        if self.site not in (None, "same-origin", "none") and not identity.origin:
            raise Forbidden("A stream cannot be opened from another site.")

    def open(self, read_identity: Callable[[bool], tuple[Identity, int]]) -> Connection:
        """Subscribe in this worker's hub. `read_identity(is_retry)`: who asks, and the hub's seq before that was read.

        Raises StreamLimitExceeded.
        """

        def read_subscriber(is_retry: bool) -> Subscriber:
            identity, as_of_seq = read_identity(is_retry)
            return Subscriber(identity.actor.viewer, identity.session_name, identity.expires_at, as_of_seq)

        is_api = self.path == API_PATH
        return open_stream(
            HUB.current,
            read_subscriber,
            cursor_text=self.last_event_id or self.args.get("after"),
            representation="json" if is_api else "html",
            address=self.address,
            label=self.args.get("connectionId" if is_api else "label", "")[:_MAX_LABEL_CHARACTERS],
        )
