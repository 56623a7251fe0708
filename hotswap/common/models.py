"""Accounts, refresh tokens, the audit trail, remembered answers, what is counted.

Rules:
- A person acts under a pseudonym in every record, so that erasing the person keeps
  the trail whole.
- The audit trail is append-only in the database itself, by plain triggers: those of
  pgtrigger are switched off by a variable that every session can set.
"""

import uuid
from datetime import datetime, timedelta
from functools import cached_property
from typing import ClassVar

import pgtrigger
from django.conf import settings
from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.postgres.fields import ArrayField
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from hotswap.common.changes import Tracked
from hotswap.common.roles import INCLUDES, PEOPLE, Role
from hotswap.common.sealed_field import SealedField

# What the answers that are kept for `Idempotency-Key` are sealed with.
ANSWER_PURPOSE = "remembered-answer"


class BaseModel(models.Model):
    """A row with a GUID and its times; `updated_at` is also its ETag."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class User(AbstractUser, Tracked):
    """A person. The groups Admin, Operator and Viewer give the role."""

    audited_fields = frozenset({"is_active", "must_change_password", "erased_at"})

    pseudonym = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    must_change_password = models.BooleanField(
        default=False, help_text="whoever set it knows the password too"
    )
    password_set_at = models.DateTimeField(default=timezone.now, editable=False)
    erased_at = models.DateTimeField(
        null=True, editable=False, help_text="since when the pseudonym alone is left"
    )
    name_salt = models.UUIDField(
        null=True,
        default=uuid.uuid4,
        editable=False,
        help_text="of the name within signatures; destroyed with the name",
    )

    objects: ClassVar[UserManager["User"]] = UserManager()  # type: ignore[assignment]

    @cached_property
    def role(self) -> Role | None:
        """The highest role held, or None."""
        if not self.is_active:
            return None
        if self.is_superuser:
            return Role.ADMIN
        held = {group.name for group in self.groups.all()}
        return next((role for role in PEOPLE if role.value in held), None)

    def has_aged_password(self, now: datetime) -> bool:
        """Tell whether the password is older than passwords may become."""
        limit: timedelta | None = settings.PASSWORD_MAX_AGE
        return (
            limit is not None
            and self.has_usable_password()
            and self.password_set_at < now - limit
        )

    def may(self, needed: Role) -> bool:
        """Tell whether this person may do what needs the role."""
        return self.role is not None and needed in INCLUDES[self.role]


class FormerPassword(models.Model):
    """The hash of a password that a person had before, lest it be used again."""

    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="former_passwords"
    )
    password = models.CharField(max_length=128)
    replaced_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"former password of {self.user_id}"


class RefreshToken(models.Model):
    """One refresh token of a login; only its SHA-256 is kept.

    Each may be used once. Using one a second time revokes the whole family, because
    either the owner or a thief holds a copy.
    """

    digest = models.CharField(max_length=64, unique=True)
    family = models.UUIDField(db_index=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)
    stamp = models.CharField(
        max_length=16, default="", help_text="of the password at the login"
    )
    second_factor = models.BooleanField(
        default=False, help_text="whether the login was by two factors"
    )
    used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"refresh token of {self.user_id}"


class PersonalToken(models.Model):
    """A token that programs use in the name of a person; only its SHA-256 is kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    name = models.CharField(max_length=64)
    role = models.CharField(
        max_length=16, help_text="what it may do at most, if its person may"
    )
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=8, help_text="the beginning of the token")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name


class ConsoleSession(AbstractBaseSession):
    """A session of the console; its end is the earlier of two limits.

    The key opens the console, so that lists and addresses name `public_id`.
    """

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True)
    created_at = models.DateTimeField(help_text="of the login")
    last_seen_at = models.DateTimeField()
    address = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"session of {self.user_id}"


class LoginCount(models.Model):
    """Attempts to log in within one window: what has failed, and what is under way."""

    key = models.CharField(max_length=160, primary_key=True)
    count = models.IntegerField()
    counted_at = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self) -> str:
        return f"{self.count} of {self.key}"


class AuditEvent(models.Model):
    """What a person did or the server decided; written in the same transaction."""

    class ActorKind(models.TextChoices):
        PERSON = "person"
        DEVICE = "device"
        SERVER = "server"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor_kind = models.CharField(max_length=8, choices=ActorKind.choices)
    actor = models.UUIDField(null=True, help_text="pseudonym; empty for the server")
    verb = models.CharField(max_length=64)
    object_kind = models.CharField(max_length=32)
    object_id = models.CharField(max_length=64)
    details = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    class Meta:
        indexes = [
            models.Index(fields=["object_kind", "object_id"], name="audit_object"),
            models.Index(fields=["actor"], name="audit_actor"),
            models.Index(fields=["verb"], name="audit_verb"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.verb}"


class AuditPending(models.Model):
    """A row of the audit trail that waits for its place in the chain.

    Written by a trigger in the transaction of the row, so that none is passed over.
    """

    event_id = models.BigIntegerField(primary_key=True)

    def __str__(self) -> str:
        return f"#{self.event_id}"


class AuditSeal(models.Model):
    """A link of the chain: what a row of the audit trail was when it was sealed.

    Append-only by triggers, as the trail itself (`hotswap.common.trail.chain`).
    """

    position = models.BigIntegerField(
        primary_key=True, help_text="from 1, without gaps"
    )
    event_id = models.BigIntegerField(unique=True)
    content_hash = models.BinaryField(max_length=32)
    chain_hash = models.BinaryField(max_length=32)
    sealed_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"#{self.position}"


class AuditAnchor(models.Model):
    """A signed end of the chain; a copy lies outside of the database."""

    position = models.BigIntegerField(primary_key=True)
    chain_hash = models.BinaryField(max_length=32)
    at = models.DateTimeField()
    signature = models.BinaryField(max_length=64)

    def __str__(self) -> str:
        return f"#{self.position}"


class RememberedAnswer(models.Model):
    """The answer given to an `Idempotency-Key`, replayed for 24 hours.

    The body is sealed, and without the secrets that the answer showed once.
    """

    principal = models.CharField(max_length=80)
    key = models.CharField(max_length=255)
    route = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    body = SealedField(null=True, purpose=ANSWER_PURPOSE)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["principal", "key", "route"], name="one_answer_a_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"


class KeyFingerprint(models.Model):
    """A check value of each key file, so that a lost or swapped file is noticed."""

    name = models.CharField(max_length=300, primary_key=True)
    fingerprint = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.name


class JobRun(models.Model):
    """When a job last ran: liveness, read from the database alone; or a lease."""

    name = models.CharField(max_length=32, primary_key=True)
    last_run_at = models.DateTimeField()
    restarted_at = models.DateTimeField(
        help_text="since when the job has run without a gap"
    )
    noted_at = models.DateTimeField(
        db_default=Now(),
        editable=False,
        help_text="when that was written, by the clock of the database",
    )

    class Meta:
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            # A trigger, so that a process of the former version notes it too.
            pgtrigger.Trigger(
                name="job_run_noted",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update,
                func="NEW.noted_at = clock_timestamp(); RETURN NEW;",
            )
        ]

    def __str__(self) -> str:
        return self.name


class ServerProcess(models.Model):
    """A process of the server and its last heartbeat (`hotswap.monitoring.hosts`)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(max_length=255)
    role = models.CharField(max_length=8, help_text="web, worker or beat")
    pid = models.IntegerField()
    version = models.CharField(max_length=64)
    keys = models.CharField(
        max_length=64, blank=True, help_text="fingerprint of all key files together"
    )
    stores = models.JSONField(
        default=dict, help_text="identity of each storage location, by its name"
    )
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="of the last heartbeat")
    ticks = models.BigIntegerField(default=0)
    last_tick_at = models.DateTimeField(null=True)
    ticked = models.JSONField(
        default=dict,
        help_text="when it last ticked each deployment of the last minute, by id",
    )

    def __str__(self) -> str:
        return f"{self.role} {self.pid} on {self.host}"


class RemovalCount(models.Model):
    """How much a policy of retention has removed on one day (UTC)."""

    policy = models.CharField(max_length=32)
    day = models.DateField()
    number = models.BigIntegerField()
    last_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["policy", "day"], name="one_removal_count_a_day"
            )
        ]

    def __str__(self) -> str:
        return f"{self.number} of {self.policy} on {self.day}"


class MetricCount(models.Model):
    """A part of the value of a counter, or of one bucket of a histogram.

    The value is the sum of all such rows (`hotswap.common.metrics`).
    """

    metric = models.CharField(max_length=64)
    labels = ArrayField(
        models.CharField(max_length=128), default=list, help_text="in their order"
    )
    bucket = models.SmallIntegerField(default=-1, help_text="-1: of a counter")
    count = models.BigIntegerField()
    total = models.FloatField(default=0, help_text="the durations in seconds")

    def __str__(self) -> str:
        return f"{self.count} of {self.metric}"
