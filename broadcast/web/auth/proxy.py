"""Who a reverse proxy says is there. Its header is believed from the addresses that are configured, from nobody else."""

from ipaddress import ip_network

import structlog
from flask import Request

from broadcast.base.app_parts import AppPart
from broadcast.config.settings import Settings
from broadcast.domain.external_identity import PROXY, Vouched
from broadcast.web.core.peer import is_peer_in, peer

_MOST = 200  # characters of a header that are looked at
_log = structlog.get_logger(__name__)


class ProxySignIn:
    """Reads the headers; begins no session."""

    def __init__(self, settings: Settings):
        self._user, self._roles = settings.proxy_sign_in_header, settings.proxy_roles_header
        self._from = [ip_network(network) for network in settings.proxy_sign_in_from]

    def username(self, request: Request) -> str | None:
        """Whom the proxy names, as usernames are written here; None when it names nobody or may not."""
        named = request.headers.get(self._user, "").strip()
        if not named:
            return None
        if not is_peer_in(request, self._from):
            _log.warning("proxy_sign_in.ignored", header=self._user, peer=peer(request))
            return None
        return named[:_MOST].lower()

    def somebody(self, request: Request) -> Vouched | None:
        """The same, with the roles that the proxy tells."""
        username = self.username(request)
        if username is None:
            return None
        roles = None
        if self._roles:
            told = request.headers.get(self._roles, "")[: 10 * _MOST]
            roles = frozenset(name.strip() for name in told.split(",") if name.strip())
        return Vouched(PROXY, None, username, roles=roles)


PROXY_SIGN_IN = AppPart[ProxySignIn | None]("proxy_sign_in")
