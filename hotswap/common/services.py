"""What an installation needs before its first request."""

import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connection, transaction
from django.utils import timezone

from hotswap.common import audit, keyring
from hotswap.common.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from hotswap.common.models import (
    Clock,
    KeyFingerprint,
    RefreshToken,
    RememberedAnswer,
    User,
)
from hotswap.common.roles import PEOPLE, Role

CLOCK_GAP = timedelta(seconds=30)


logger = logging.getLogger(__name__)


class OwnAccountError(ConflictError):
    code = "own_account"


class WeakPasswordError(InvalidInputError):
    code = "weak_password"


class TokenKeysPresentError(ConflictError):
    code = "token_keys_present"


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


def _known_fingerprints() -> dict[str, str]:
    return dict(KeyFingerprint.objects.values_list("name", "fingerprint"))


def _compare(known: dict[str, str], found: dict[str, str]) -> None:
    for name, fingerprint in known.items():
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


def ensure_groups() -> None:
    """Make the groups that give people their role."""
    for role in PEOPLE:
        Group.objects.get_or_create(name=role.value)


def create_person(
    *, username: str, password: str, role: Role, email: str = "", actor: User | None
) -> User:
    """Create a person with one role; everyone may enter the console."""
    with transaction.atomic():
        ensure_groups()
        user = User.objects.create_user(username, email, password)
        user.is_staff = True
        user.save(update_fields=["is_staff"])
        user.groups.set([Group.objects.get(name=role.value)])
        audit.record(
            actor=actor,
            verb="person.created",
            object_kind="person",
            object_id=user.pseudonym,
            details={"role": role.value},
        )
    return user


def set_person_active(*, actor: User, user_id: int, is_active: bool) -> User:
    """Let a person in again, or shut one out everywhere at once.

    Raises:
        NotFoundError: there is no such person.
        OwnAccountError: nobody shuts out themselves, so that an Admin stays.
        ForbiddenError: the actor is no Admin any more.
    """
    with transaction.atomic():
        user = _person_of_another(actor, user_id, "disable or enable")
        if user.is_active == is_active:
            return user
        user.is_active = is_active
        user.save(update_fields=["is_active"])
        if not is_active:
            RefreshToken.objects.filter(user=user, revoked_at__isnull=True).update(
                revoked_at=timezone.now()
            )
        audit.record(
            actor=actor,
            verb="person.enabled" if is_active else "person.disabled",
            object_kind="person",
            object_id=user.pseudonym,
        )
    return user


def change_person(*, actor: User, user_id: int, role: Role, email: str) -> User:
    """Give a person another role or email address; nothing happens if both are theirs.

    The new role holds from the next request on.

    Raises:
        NotFoundError: there is no such person.
        OwnAccountError: nobody changes their own role, so that an Admin stays.
        ForbiddenError: the actor is no Admin any more.
    """
    with transaction.atomic():
        user = _person_of_another(actor, user_id, "change")
        former = held_role(user)
        details: dict[str, Any] = {}
        if former != role:
            details["role"] = {"from": former and former.value, "to": role.value}
            user.is_superuser = False
            user.groups.set([Group.objects.get(name=role.value)])
        if user.email != email:
            # The trail keeps no address.
            details["email"] = "changed" if email else "removed"
            user.email = email
        if details:
            user.save(update_fields=["is_superuser", "email"])
            audit.record(
                actor=actor,
                verb="person.changed",
                object_kind="person",
                object_id=user.pseudonym,
                details=details,
            )
    return user


def held_role(person: User) -> Role | None:
    """Return the role that a person has, or had before being disabled."""
    if person.is_superuser:
        return Role.ADMIN
    held = {group.name for group in person.groups.all()}
    return next((role for role in PEOPLE if role.value in held), None)


def _person_of_another(actor: User, user_id: int, verb: str) -> User:
    """Lock a person and the Admin who acts on them, who must still be one.

    Two who take the role from each other at once are one after the other: an Admin
    stays.
    """
    people = User.objects.select_for_update(no_key=True).order_by("pk")
    locked = {each.pk: each for each in people.filter(pk__in=(user_id, actor.pk))}
    if user_id not in locked:
        raise NotFoundError("there is no such person")
    if user_id == actor.pk:
        raise OwnAccountError(f"you cannot {verb} yourself")
    if actor.pk not in locked or not locked[actor.pk].may(Role.ADMIN):
        raise ForbiddenError("you are no Admin any more")
    return locked[user_id]


def set_password(*, username: str, password: str, actor: User | None) -> User:
    """Give a person another password, and end every login of theirs.

    Raises:
        NotFoundError: nobody has this name.
        OwnAccountError: it is the actor's own, whose change asks for the old one.
        WeakPasswordError: the password is too weak.
    """
    with transaction.atomic():
        user = (
            User.objects.select_for_update(no_key=True)
            .filter(username=username)
            .first()
        )
        if user is None:
            raise NotFoundError(f"there is no person {username!r}")
        if actor is not None and actor.pk == user.pk:
            raise OwnAccountError("change yours from the menu at your name")
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise WeakPasswordError(" ".join(error.messages)) from error
        user.set_password(password)
        user.save(update_fields=["password"])
        RefreshToken.objects.filter(user=user, revoked_at__isnull=True).update(
            revoked_at=timezone.now()
        )
        audit.record(
            actor=actor,
            verb="person.password-set",
            object_kind="person",
            object_id=user.pseudonym,
        )
    return user


def ensure_first_admin(*, username: str, password: str) -> bool:
    """Create the first Admin where there is none yet; tell whether it did."""
    ensure_groups()
    if User.objects.filter(groups__name=Role.ADMIN.value).exists():
        return False
    create_person(username=username, password=password, role=Role.ADMIN, actor=None)
    return True


def touch_clock(*, name: str, now: datetime) -> datetime:
    """Note that a periodic job runs, and when it came back after a gap.

    Returns:
        The time since which the job has run without a gap of more than 30 s. Whoever
        measures silence measures from there, so that an outage of the server is not
        taken for one of the devices.
    """
    # GREATEST keeps a late duplicate of the job from turning the clock back.
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO common_clock AS clock (name, last_run_at, restarted_at)
            VALUES (%(name)s, %(now)s, %(now)s)
            ON CONFLICT (name) DO UPDATE SET
                last_run_at = GREATEST(clock.last_run_at, EXCLUDED.last_run_at),
                restarted_at = CASE
                    WHEN EXCLUDED.last_run_at - clock.last_run_at
                        > make_interval(secs => %(gap_seconds)s)
                    THEN EXCLUDED.last_run_at ELSE clock.restarted_at END
            RETURNING restarted_at
            """,
            {"name": name, "now": now, "gap_seconds": CLOCK_GAP.total_seconds()},
        )
        row = cursor.fetchone()
    restarted_at: datetime = row[0]
    return restarted_at


def clock_age(*, name: str) -> timedelta | None:
    """Return how long ago the job last ran, or None if it never did."""
    last = Clock.objects.filter(name=name).values_list("last_run_at", flat=True).first()
    return None if last is None else timezone.now() - last


def tidy(*, now: datetime) -> None:
    """Drop what has lived long enough: remembered answers and dead refresh tokens."""
    RememberedAnswer.objects.filter(
        created_at__lt=now - settings.IDEMPOTENCY_KEY_LIFETIME
    ).delete()
    RefreshToken.objects.filter(expires_at__lt=now).delete()
