"""The tables. What comes later has its columns from the start, so that growing needs no rewrite of rows.

Times are aware UTC. Rows that others refer to stay: people are disabled or made anonymous, broadcasts cancelled.
"""

from broadcast.store.models.broadcasts import (
    Broadcast,
    BroadcastExceptRole,
    BroadcastExceptUser,
    BroadcastRole,
    BroadcastUser,
    MessageTemplate,
    SavedAudience,
    audience_of,
)
from broadcast.store.models.people import (
    ApiToken,
    Invitation,
    PeopleVersion,
    PersonIdentity,
    Role,
    User,
    UserRole,
    UserSession,
)
from broadcast.store.models.record import Audit, AuditHead, IdempotencyKey, LogEvent, LogHead, Receipt, UndoStep

__all__ = [
    "ApiToken",
    "Audit",
    "AuditHead",
    "Broadcast",
    "BroadcastExceptRole",
    "BroadcastExceptUser",
    "BroadcastRole",
    "BroadcastUser",
    "IdempotencyKey",
    "Invitation",
    "LogEvent",
    "LogHead",
    "MessageTemplate",
    "PeopleVersion",
    "PersonIdentity",
    "Receipt",
    "Role",
    "SavedAudience",
    "UndoStep",
    "User",
    "UserRole",
    "UserSession",
    "audience_of",
]
