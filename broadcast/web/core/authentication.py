"""Who is behind a session, a token, or the token of an embedded inbox: a user and how long that holds.

Nothing here knows the request that carries them, so that a stream that opens before WSGI (`web.streams.direct`) asks
the same.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from flask import g

from broadcast.actions import sessions, tokens
from broadcast.base.errors import Forbidden, NotSignedIn
from broadcast.config.settings import SETTINGS
from broadcast.domain import permissions
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store.credentials import Credential
from broadcast.store.fast.last_used_buffer import LAST_USED_BUFFER
from broadcast.web.embed import tokens as embed_tokens


class CredentialSource(Protocol):
    """Where credentials come from: the module `store.credentials`, or a worker's `CredentialCache`."""

    def find_by_session_token(self, token_hash: str) -> Credential | None: ...

    def find_by_embedded_session(self, session_id: int) -> Credential | None: ...

    def find_by_api_token(self, token_hash: str) -> Credential | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The authenticated user. `session_name` names the session or token for the hub; `session_id` is None for tokens.
    `authenticated_at` is the time of sign-in, or of the token's creation.

    `token_id` is the token's id, `scopes` are its scopes; `expires_at` is the latest end of this identity. `origin` is
    the site whose pages embed the inbox.
    """

    actor: Actor
    username: str
    session_name: str
    authenticated_at: datetime
    has_password: bool
    session_id: int | None = None
    token_id: int | None = None
    expires_at: datetime | None = None
    origin: str | None = None
    scopes: frozenset[str] = frozenset()

    @property
    def id(self) -> int:
        return self.actor.user_id

    @property
    def name(self) -> str:
        return self.actor.name

    @property
    def roles(self) -> list[str]:
        return sorted(self.actor.roles)

    @property
    def is_admin(self) -> bool:
        return self.actor.may_administer

    def may(self, permission: str) -> bool:
        """For templates: actions without permission are not offered."""
        return self.actor.may(Permission(permission))


def read_bearer_token(authorization: str) -> str | None:
    """The token of an Authorization header (RFC 6750); None for another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def authenticate_bearer(token: str, *, origin: str | None, source: CredentialSource, now: datetime) -> Identity:
    """The user of an API token, or of an embedded inbox's token, which is valid only for its own origin.

    Raises NotSignedIn or Forbidden.
    """
    if token.startswith(embed_tokens.PREFIX):
        return _authenticate_embed_token(token, origin, source, now)
    return _authenticate_api_token(token, source, now)


def authenticate_session(token: str, *, source: CredentialSource, now: datetime) -> Identity | None:
    """The user of a session; None when it has ended."""
    credential = source.find_by_session_token(tokens.hash_token(token))
    if credential is None or not _touch_if_active(credential, now):
        return None
    actor = replace(_build_actor(credential, may_use_console=True), signed_in_at=credential.created_at)
    session_name = sessions.format_session_key(credential.id)
    expires_at = credential.created_at + _get_max_session_age(credential)
    return _build_identity(credential, actor, session_name, expires_at, session_id=credential.id)


def _get_max_session_age(credential: Credential) -> timedelta:
    """The maximum age of a session; one from a provider is shorter, until the provider is asked again."""
    settings = SETTINGS.current
    hours = settings.session_max_hours
    return timedelta(hours=min(hours, settings.oidc_session_hours) if credential.issuer else hours)


def _touch_if_active(credential: Credential, now: datetime) -> bool:
    """Whether a session is still valid; if so, its use is recorded."""
    settings = SETTINGS.current
    is_idle = now - credential.used_at > timedelta(hours=settings.session_idle_hours)
    is_old = now - credential.created_at > _get_max_session_age(credential)
    if credential.ended_at or credential.disabled_at or is_idle or is_old:
        return False
    LAST_USED_BUFFER.current.note_session(credential.id, credential.used_at, now=now)
    return True


def _authenticate_embed_token(token: str, origin: str | None, source: CredentialSource, now: datetime) -> Identity:
    """Sets `g.embedded_in` before checking expiry, so that the page may read that its token has expired."""
    claims = embed_tokens.read(token)
    credential = claims and source.find_by_embedded_session(claims[0])
    if credential is None:
        raise NotSignedIn("This token is not valid. Ask your server for a new one.")
    settings = SETTINGS.current
    if credential.origin not in settings.embed_origins or origin != credential.origin:
        raise Forbidden("This token is for another site.")
    g.embedded_in = credential.origin
    if claims[1] <= now or not _touch_if_active(credential, now):
        raise NotSignedIn("This token has expired. Ask your server for a new one.")
    session_name = f"{sessions.format_session_key(credential.id)} {tokens.format_token_key(credential.token_id)}"
    actor = _build_actor(credential, may_use_console=False)
    return _build_identity(credential, actor, session_name, claims[1], origin=credential.origin)


def _authenticate_api_token(token: str, source: CredentialSource, now: datetime) -> Identity:
    credential = source.find_by_api_token(tokens.hash_token(token))
    if credential is None:
        raise NotSignedIn("This token is not valid. Ask an administrator for a new one.")
    if credential.ended_at or credential.disabled_at or (credential.expires_at and credential.expires_at <= now):
        raise NotSignedIn("This token has expired or was revoked. Ask an administrator for a new one.")
    LAST_USED_BUFFER.current.note_token(credential.id, credential.used_at, now=now)
    scopes = frozenset(credential.scopes.split())
    actor = _build_actor(credential, may_use_console="admin" in scopes)
    token_name = tokens.format_token_key(credential.id)
    return _build_identity(credential, actor, token_name, credential.expires_at, token_id=credential.id, scopes=scopes)


def _build_identity(
    credential: Credential, actor: Actor, session_name: str, expires_at: datetime | None, **details: Any
) -> Identity:
    return Identity(
        actor=actor,
        username=credential.username,
        session_name=session_name,
        authenticated_at=credential.created_at,
        has_password=credential.has_password,
        expires_at=expires_at,
        **details,
    )


def _build_actor(credential: Credential, *, may_use_console: bool) -> Actor:
    """The actor with the permissions of its roles. No console permissions for a token without the console scope."""
    may_announce = credential.scopes is not None and "events" in credential.scopes.split()
    if not may_use_console:
        return Actor(credential.user_id, credential.name, credential.roles, may_ingest_events=may_announce)
    allowed = permissions.get_role_permissions(credential.roles)
    return Actor(
        credential.user_id, credential.name, credential.roles, "admin" in credential.roles, may_announce, allowed
    )
