"""What an installation needs before its first request."""

import hashlib
import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, Func
from django_celery_beat.models import PeriodicTask

from hotswap.common import audit, keyring
from hotswap.common.errors import ConflictError
from hotswap.common.models import (
    AuditSeal,
    ConsoleSession,
    JobRun,
    KeyFingerprint,
    LoginCount,
    PersonalToken,
    RefreshToken,
    RememberedAnswer,
    RemovalCount,
    User,
)
from hotswap.common.retention import delete_some
from hotswap.common.trail import chain
from hotswap.common.trail.chain import AUDIT_KEY_REPLACED

CLOCK_GAP = timedelta(seconds=30)
# A run that is late is late by less; the clock was ahead when the last one was noted.
CLOCK_SET_BACK = timedelta(minutes=5)

logger = logging.getLogger(__name__)


class TokenKeysPresentError(ConflictError):
    code = "token_keys_present"


class AuditKeyPresentError(ConflictError):
    code = "audit_key_present"


def ensure_keys() -> None:
    """Make the key files at the first start; later, check that they are the same.

    A token key may be added, and taken away once another one is known: that ends the
    sessions it signed and nothing else.

    Raises:
        ImproperlyConfigured: a key file is gone or another one is in its place. What
            it protects could not be read any more, so nothing starts.
    """
    known = _known_fingerprints()
    if not known:
        keyring.create_key_files()
    elif "audit" not in known:
        # The database is older than the chain of its audit trail.
        keyring.create_audit_key()
    found = keyring.fingerprints()
    _compare(known, found)
    for name, fingerprint in found.items():
        if name not in known:
            KeyFingerprint.objects.get_or_create(
                name=name, defaults={"fingerprint": fingerprint}
            )
    gone = [name for name in known if name not in found]
    if gone:
        logger.warning("Token keys were taken away", extra={"keys": gone})
        KeyFingerprint.objects.filter(name__in=gone).delete()


def check_keys() -> None:
    """Check that the key files are those of the database; make and change nothing.

    Raises:
        ImproperlyConfigured: they are not, or the database has never been prepared.
    """
    known = _known_fingerprints()
    if not known:
        raise ImproperlyConfigured(
            "this database has no keys yet: start HotSwap once, or run "
            "`hotswap manage prepare`"
        )
    _compare(known, keyring.fingerprints())


def require_own_keys() -> str:
    """Check that the key files are those of the database, unless it has none yet.

    Returns:
        A fingerprint of all key files together; "" before the first start.

    Raises:
        ImproperlyConfigured: a file is missing, or is another installation's.
    """
    known = _known_fingerprints()
    if not known:
        return ""
    found = keyring.fingerprints()
    _compare(known, found)
    text = "\n".join(f"{name} {found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()


def _known_fingerprints() -> dict[str, str]:
    return dict(KeyFingerprint.objects.values_list("name", "fingerprint"))


def _compare(known: dict[str, str], found: dict[str, str]) -> None:
    for name, fingerprint in known.items():
        if name == "master" and fingerprint in keyring.master_fingerprints():
            # The former one, while a rotation is not over.
            continue
        if name in found and found[name] != fingerprint:
            raise ImproperlyConfigured(keyring.wrong_file(name))
    tokens = [name for name in known if name.startswith(keyring.TOKENS)]
    if tokens and not any(name in found for name in tokens):
        raise ImproperlyConfigured(keyring.strange_tokens(tokens))


def replace_token_keys(*, actor: User | None) -> str:
    """Make a token key where those that the database knows are lost; return its name.

    Everybody has to log in again; devices do so by themselves.

    Raises:
        TokenKeysPresentError: they are not lost.
    """
    known = {name for name in _known_fingerprints() if name.startswith(keyring.TOKENS)}
    present = {
        f"{keyring.TOKENS}{path.stem}" for path in keyring.tokens_folder().glob("*.pem")
    }
    if not known or known & present:
        raise TokenKeysPresentError("the token keys that the database knows are there")
    name = keyring.create_token_key()
    keyring.forget_keys()
    with transaction.atomic():
        KeyFingerprint.objects.filter(name__in=known).delete()
        audit.record(
            actor=actor,
            verb="token-key.replaced",
            object_kind="token-key",
            object_id=name,
        )
    ensure_keys()
    return name


def replace_audit_key(*, actor: User | None) -> str:
    """Make a key that signs anchors where the old one is lost; return its id.

    The anchors of the old key vouch for nothing any more, which every check of the
    trail says from then on, up to the position that was sealed last.

    Raises:
        AuditKeyPresentError: there is a file, whichever key it holds.
    """
    path = keyring.key_file("audit")
    if path.exists():
        raise AuditKeyPresentError(
            f"{path} is there: if it is the right one, nothing has to be done; move "
            "one that is spoiled, or another, away first"
        )
    keyring.create_audit_key()
    keyring.forget_keys()
    key_id = chain.key_id(keyring.audit_key().public_key())
    end = AuditSeal.objects.order_by("-position").first()
    with transaction.atomic():
        KeyFingerprint.objects.filter(name="audit").delete()
        audit.record(
            actor=actor,
            verb=AUDIT_KEY_REPLACED,
            object_kind="audit-key",
            object_id=key_id,
            details={"unprovedTo": 0 if end is None else end.position},
        )
    ensure_keys()
    return key_id


def record_run(*, name: str, now: datetime) -> datetime:
    """Note that a periodic job runs, and when it came back after a gap.

    Returns:
        The time since which the job has run without a gap of more than 30 s. Whoever
        measures silence measures from there, so that an outage of the server is not
        taken for one of the devices. Where the last run is more than five minutes
        ahead of this one, a clock was wrong and has been set right: the job begins
        anew.
    """
    # GREATEST keeps a late duplicate of the job from turning the clock back.
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO common_jobrun AS run (name, last_run_at, restarted_at)
            VALUES (%(name)s, %(now)s, %(now)s)
            ON CONFLICT (name) DO UPDATE SET
                last_run_at = CASE
                    WHEN run.last_run_at - EXCLUDED.last_run_at
                        > make_interval(secs => %(back_seconds)s)
                    THEN EXCLUDED.last_run_at
                    ELSE GREATEST(run.last_run_at, EXCLUDED.last_run_at) END,
                restarted_at = CASE
                    WHEN EXCLUDED.last_run_at - run.last_run_at
                        > make_interval(secs => %(gap_seconds)s)
                        OR run.last_run_at - EXCLUDED.last_run_at
                        > make_interval(secs => %(back_seconds)s)
                    THEN EXCLUDED.last_run_at ELSE run.restarted_at END
            RETURNING restarted_at
            """,
            {
                "name": name,
                "now": now,
                "gap_seconds": CLOCK_GAP.total_seconds(),
                "back_seconds": CLOCK_SET_BACK.total_seconds(),
            },
        )
        row = cursor.fetchone()
    restarted_at: datetime = row[0]
    return restarted_at


def running_since(*, name: str, now: datetime) -> datetime | None:
    """Return since when a periodic job has run without a gap, as `record_run` does.

    Returns:
        None if its last run is more than 30 s away, or it never ran.
    """
    since: datetime | None = (
        JobRun.objects.filter(
            name=name, last_run_at__range=(now - CLOCK_GAP, now + CLOCK_GAP)
        )
        .values_list("restarted_at", flat=True)
        .first()
    )
    return since


def run_age(*, name: str) -> timedelta | None:
    """Return how long ago the job last ran, or None if it never did.

    The clock of the database alone tells, which all hosts share: that of the host where
    the job runs may be wrong.
    """
    moment = Func(function="clock_timestamp", output_field=DateTimeField())
    age: timedelta | None = (
        JobRun.objects.filter(name=name)
        .annotate(
            age=ExpressionWrapper(moment - F("noted_at"), output_field=DurationField())
        )
        .values_list("age", flat=True)
        .first()
    )
    return age


def forget_former_schedules() -> int:
    """Forget periodic work of a former version, which no worker knows; return how much.

    The scheduler adds what is new by itself, and keeps the rest for ever.
    """
    former = PeriodicTask.objects.exclude(name__in=settings.CELERY_BEAT_SCHEDULE)
    removed, _ = former.exclude(name="celery.backend_cleanup").delete()
    return removed


def forget_answers(before: datetime, limit: int) -> int:
    """Forget answers that were remembered before a time; return how many."""
    return delete_some(RememberedAnswer.objects.filter(created_at__lt=before), limit)


def forget_refresh_tokens(before: datetime, limit: int) -> int:
    """Forget refresh tokens that ended before a time; return how many."""
    return delete_some(RefreshToken.objects.filter(expires_at__lt=before), limit)


def forget_personal_tokens(before: datetime, limit: int) -> int:
    """Forget personal tokens that ended before a time; return how many."""
    return delete_some(PersonalToken.objects.filter(expires_at__lt=before), limit)


def forget_sessions(before: datetime, limit: int) -> int:
    """Forget sessions of the console that ended before a time; return how many."""
    return delete_some(ConsoleSession.objects.filter(expire_date__lt=before), limit)


def forget_login_counts(before: datetime, limit: int) -> int:
    """Forget attempts to log in that were counted before a time; return how many."""
    return delete_some(LoginCount.objects.filter(counted_at__lt=before), limit)


def forget_removal_counts(before: datetime, limit: int) -> int:
    """Forget what was removed on days before a time; return how many were noted."""
    return delete_some(RemovalCount.objects.filter(last_at__lt=before), limit)
