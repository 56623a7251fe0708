"""Words for devices and groups."""

from django.db import models

MAX_TAGS = 50


class DeviceStatus(models.TextChoices):
    """What the list shows. Derived, never stored: it changes by silence."""

    NEVER_SEEN = "never_seen", "never seen"
    ONLINE = "online"
    OFFLINE = "offline"
    REVOKED = "revoked"


class DeviceHealth(models.TextChoices):
    """How a device fares: its latest verdict, as long as it is online."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class KeyStatus(models.TextChoices):
    """How the current key of a device stands. Derived from the clock, never stored."""

    VALID = "valid", "valid"
    EXPIRING = "expiring", "expiring"
    EXPIRED = "expired", "expired"
    NONE = "none", "none"


class RunKnowledge(models.TextChoices):
    """How it is known what a device ran."""

    REPORTED = "reported"
    PROVED = "proved"
    RETURNED = "returned"
    # Ordered, reported, and left without a proof.
    TRIED = "tried"


class GroupType(models.TextChoices):
    """A static group has a list of members; a dynamic one has a rule."""

    STATIC = "Static"
    DYNAMIC = "Dynamic"


class EnrolmentStatus(models.TextChoices):
    """How far a device has come that registers itself."""

    PENDING = "Pending"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    COMPLETED = "Completed"


OPEN_ENROLMENTS = (EnrolmentStatus.PENDING, EnrolmentStatus.APPROVED)
ENROLMENT_MOVES = (
    (EnrolmentStatus.PENDING, EnrolmentStatus.APPROVED),
    (EnrolmentStatus.PENDING, EnrolmentStatus.REJECTED),
    (EnrolmentStatus.APPROVED, EnrolmentStatus.REJECTED),
    (EnrolmentStatus.APPROVED, EnrolmentStatus.COMPLETED),
)


class TokenStatus(models.TextChoices):
    """Whether an enrolment token lets devices in. Derived, never stored."""

    ACTIVE = "active"
    EXPIRED = "expired"
    USED_UP = "used_up", "used up"
    REVOKED = "revoked"


class ImportFormat(models.TextChoices):
    CSV = "csv", "CSV"
    NDJSON = "ndjson", "NDJSON"


class ImportMode(models.TextChoices):
    """What an import does with devices that are registered already."""

    CREATE = "create", "Refuse them"
    UPSERT = "upsert", "Change them"


class ImportStatus(models.TextChoices):
    """How far an import has come. Rejected lines do not make it Failed."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"


OPEN_IMPORTS = (ImportStatus.PENDING, ImportStatus.RUNNING)
IMPORT_MOVES = (
    (ImportStatus.PENDING, ImportStatus.RUNNING),
    (ImportStatus.RUNNING, ImportStatus.COMPLETED),
    (ImportStatus.RUNNING, ImportStatus.FAILED),
)


class LineOutcome(models.TextChoices):
    """What became of a line; empty while nobody has looked at it."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"


class LineAction(models.TextChoices):
    """What would become of a line, in the words of a dry run."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    REJECT = "reject"


ACTIONS = dict(zip(LineOutcome, LineAction, strict=True))
