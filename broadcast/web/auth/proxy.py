"""Authentication by a reverse proxy. Its header is trusted only from the configured addresses."""

from ipaddress import ip_network

import structlog
from flask import Request

from broadcast.base.app_parts import AppPart
from broadcast.config.settings import Settings
from broadcast.domain.external_identity import PROXY_ISSUER, ExternalIdentity
from broadcast.web.core.peer import get_peer_address, is_peer_in

_MAX_HEADER_CHARACTERS = 200  # of a header that are read
_log = structlog.get_logger(__name__)


class ProxyAuthenticator:
    """Reads the headers. Does not create a session."""

    def __init__(self, settings: Settings):
        self._user_header, self._roles_header = settings.proxy_sign_in_header, settings.proxy_roles_header
        self._trusted_networks = [ip_network(network) for network in settings.proxy_sign_in_from]

    def read_username(self, request: Request) -> str | None:
        """The normalized username that the proxy sent; None when it sent none or is not trusted."""
        proxy_username = request.headers.get(self._user_header, "").strip()
        if not proxy_username:
            return None
        if not is_peer_in(request, self._trusted_networks):
            _log.warning("proxy_sign_in.ignored", header=self._user_header, peer=get_peer_address(request))
            return None
        return proxy_username[:_MAX_HEADER_CHARACTERS].lower()

    def read_external_identity(self, request: Request) -> ExternalIdentity | None:
        """The same, with the roles that the proxy sent."""
        username = self.read_username(request)
        if username is None:
            return None
        roles = None
        if self._roles_header:
            raw_roles = request.headers.get(self._roles_header, "")[: 10 * _MAX_HEADER_CHARACTERS]
            roles = frozenset(name.strip() for name in raw_roles.split(",") if name.strip())
        return ExternalIdentity(PROXY_ISSUER, None, username, roles=roles)


PROXY_SIGN_IN = AppPart[ProxyAuthenticator | None]("proxy_sign_in")
