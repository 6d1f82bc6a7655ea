"""The tables. What comes later has its columns from the start, so that growing needs no rewrite of rows.

Times are aware UTC. Rows that others refer to stay: people are disabled or made anonymous, broadcasts cancelled.
"""

from broadcast.store.models.activity import (
    Audit,
    AuditHead,
    EarlierAcknowledgement,
    IdempotencyKey,
    LogEvent,
    LogHead,
    Receipt,
    RevisionText,
    SchemaSupport,
    UndoStep,
)
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
from broadcast.store.models.users import (
    ApiToken,
    Invitation,
    PastViewer,
    PastViewerRole,
    PeopleVersion,
    PersonIdentity,
    ProviderLogoutRow,
    Role,
    User,
    UserRole,
    UserSession,
)

__all__ = [
    "ApiToken",
    "Audit",
    "AuditHead",
    "Broadcast",
    "BroadcastExceptRole",
    "BroadcastExceptUser",
    "BroadcastRole",
    "BroadcastUser",
    "EarlierAcknowledgement",
    "IdempotencyKey",
    "Invitation",
    "LogEvent",
    "LogHead",
    "MessageTemplate",
    "PastViewer",
    "PastViewerRole",
    "PeopleVersion",
    "PersonIdentity",
    "ProviderLogoutRow",
    "Receipt",
    "RevisionText",
    "Role",
    "SavedAudience",
    "SchemaSupport",
    "UndoStep",
    "User",
    "UserRole",
    "UserSession",
    "audience_of",
]
