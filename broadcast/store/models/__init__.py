"""The tables. Columns for later features exist from the start, so that growing needs no rewrite of rows.

Times are aware UTC. Referenced rows stay: users are disabled or anonymized, broadcasts cancelled.
"""

# ruff: noqa: F401 - imported for others, and so that every table is known

from broadcast.store.models.activity import (
    AuditEntry,
    AuditHead,
    EarlierAcknowledgement,
    IdempotencyKey,
    LogEvent,
    LogHead,
    Receipt,
    RevisionText,
    SchedulerState,
    SchemaSupport,
    SystemIdentity,
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
    build_audience,
)
from broadcast.store.models.channels import (
    ChannelSettings,
    Delivery,
    EmailAddress,
    EscalationPolicy,
    EscalationProgress,
    EscalationStep,
    PushSubscription,
)
from broadcast.store.models.mail import Digest, EmailPace, RecallCorrection
from broadcast.store.models.users import (
    ApiToken,
    Invitation,
    LinkedIdentity,
    MembershipVersion,
    Mute,
    PastViewer,
    PastViewerRole,
    ProviderLogoutRow,
    Role,
    SetupCode,
    User,
    UserRole,
    UserSearchToken,
    UserSession,
)
from broadcast.store.models.webhooks import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
