"""Authentication by a reverse proxy. Its header is trusted only from the configured addresses."""

from ipaddress import ip_network

import structlog
from flask import Request

from broadcast.base.app_parts import AppPart
from broadcast.config.settings import Settings
from broadcast.domain.external_identity import PROXY_ISSUER, ExternalIdentity
from broadcast.web.core.peer import get_peer_address, is_address_in

_MAX_HEADER_CHARACTERS = 200  # of a header that are read
_log = structlog.get_logger(__name__)


class ProxyAuthenticator:
    """Reads the headers. Does not create a session."""

    def __init__(self, settings: Settings):
        self.user_header, self._roles_header = settings.proxy_sign_in_header, settings.proxy_roles_header
        self._trusted_networks = [ip_network(network) for network in settings.proxy_sign_in_from]

    def read_username(self, request: Request) -> str | None:
        """The normalized username that the proxy sent; None when it sent none or is not trusted."""
        return self.accept_username(request.headers.get(self.user_header, ""), get_peer_address(request))

    def accept_username(self, sent: str, peer_address: str) -> str | None:
        """The same, of the value `sent` in `user_header` over a connection from this address."""
        if not sent.strip():
            return None
        if not is_address_in(peer_address, self._trusted_networks):
            _log.warning("proxy_sign_in.ignored", header=self.user_header, peer=peer_address)
            return None
        return sent.strip()[:_MAX_HEADER_CHARACTERS].lower()

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
