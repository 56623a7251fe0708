"""What is done to people: create, change, disable, enable, set a password."""

import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

from hotswap.common import audit
from hotswap.common.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from hotswap.common.locks import PEOPLE_CHANGE
from hotswap.common.models import (
    ConsoleSession,
    FormerPassword,
    PersonalToken,
    RefreshToken,
    RememberedAnswer,
    User,
)
from hotswap.common.pluralize import counted
from hotswap.common.roles import PEOPLE, Role
from hotswap.common.signatures import (
    Meaning,
    Signature,
    check_signature,
    signed_details,
)


class OwnAccountError(ConflictError):
    code = "own_account"


class LastAdminError(ConflictError):
    code = "last_admin"


class NameTakenError(ConflictError):
    code = "name_taken"


class WeakPasswordError(InvalidInputError):
    code = "weak_password"
    pointer = "/newPassword"


class WrongPasswordError(InvalidInputError):
    code = "wrong_password"
    pointer = "/currentPassword"


class PasswordChangedError(ConflictError):
    code = "password_changed"


def ensure_groups() -> None:
    """Make the groups that give people their role."""
    for role in PEOPLE:
        Group.objects.get_or_create(name=role.value)


def one_time_password() -> str:
    """Make up a password for one login."""
    return secrets.token_urlsafe(12)


def find_person(pseudonym: UUID) -> User:
    """Return the person of a pseudonym.

    Raises:
        NotFoundError: there is none, or the person was erased.
    """
    found = User.objects.filter(pseudonym=pseudonym, erased_at__isnull=True).first()
    if found is None:
        raise NotFoundError("there is no such person")
    return found


def create_person(
    *,
    username: str,
    password: str,
    role: Role,
    email: str = "",
    actor: User | None,
    must_change: bool = False,
) -> User:
    """Create a person with one role; everyone may enter the console.

    Args:
        must_change: whether the password is for the first login alone.

    Raises:
        NameTakenError: somebody has the name, in whatever case.
    """
    # Before the transaction: it takes long, and others wait for their turn.
    hashed = make_password(password)
    with transaction.atomic():
        _take_turn()
        if User.objects.filter(username__iexact=username).exists():
            raise NameTakenError(f"there is a person {username!r} already")
        ensure_groups()
        user = User.objects.create_user(username, email)
        user.password = hashed
        user.is_staff = True
        user.must_change_password = must_change
        user.save(update_fields=["password", "is_staff", "must_change_password"])
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
        _keep_an_admin()
        if not is_active:
            end_logins(user)
            end_personal_tokens(user)
        audit.record(
            actor=actor,
            verb="person.enabled" if is_active else "person.disabled",
            object_kind="person",
            object_id=user.pseudonym,
            changed=user,
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
        details = _give_role(user, role)
        _keep_an_admin()
        if user.email != email:
            # The trail keeps no address.
            details["email"] = "changed" if email else "removed"
            user.email = email
            user.save(update_fields=["email"])
        if details:
            audit.record(
                actor=actor,
                verb="person.changed",
                object_kind="person",
                object_id=user.pseudonym,
                details=details,
                changed=user,
            )
    return user


def remove_second_factors(*, actor: User, user_id: int) -> User:
    """Take the second factors of a person away, who logs in without or sets up others.

    Every login of theirs ends, lest a thief's goes on.

    Raises:
        NotFoundError: there is no such person.
        OwnAccountError: one's own are removed on one's own page, which asks for them.
        ForbiddenError: the actor is no Admin any more.
    """
    with transaction.atomic():
        user = _person_of_another(actor, user_id, "reset")
        removed, _ = Authenticator.objects.filter(user=user).delete()
        if removed:
            end_logins(user)
            audit.record(
                actor=actor,
                verb="person.second-factors-reset",
                object_kind="person",
                object_id=user.pseudonym,
            )
    return user


def erase_person(
    *, actor: User, user_id: int, signature: Signature | None = None
) -> User:
    """Destroy the name behind a pseudonym, with all that is known of the person.

    What the person did stays in the trail, under the pseudonym, and the row that it
    stands for stays without a name. It cannot be undone.

    Raises:
        NotFoundError: there is no such person.
        OwnAccountError: nobody erases themselves, so that an Admin stays.
        ForbiddenError: the actor is no Admin any more.
        SignatureRequiredError: it has to be signed.

    Source: Compliance, GDPR.
    """
    check_signature(actor, Meaning.ERASURE, signature)
    with transaction.atomic():
        user = _person_of_another(actor, user_id, "erase")
        role = held_role(user)
        end_logins(user)
        RefreshToken.objects.filter(user=user).delete()
        PersonalToken.objects.filter(user=user).delete()
        for model in (Authenticator, SocialAccount, EmailAddress):
            model.objects.filter(user=user).delete()
        RememberedAnswer.objects.filter(principal=str(user.pseudonym)).delete()
        for hook in settings.PERSON_ERASURE_HOOKS:
            import_string(hook)(person=user)
        user.groups.clear()
        user.username = f"erased-{str(user.pseudonym)[:8]}"
        user.first_name = user.last_name = user.email = ""
        user.is_active = user.is_superuser = user.is_staff = False
        user.must_change_password = False
        user.last_login = None
        user.set_unusable_password()
        user.former_passwords.all().delete()
        user.name_salt = None
        user.erased_at = timezone.now()
        user.save()
        _keep_an_admin()
        audit.record(
            actor=actor,
            verb="person.erased",
            object_kind="person",
            object_id=user.pseudonym,
            details=signed_details(
                signature,
                {"person": str(user.pseudonym), "role": role and role.value},
            ),
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
    _take_turn()
    people = User.objects.select_for_update(no_key=True).order_by("pk")
    locked = {each.pk: each for each in people.filter(pk__in=(user_id, actor.pk))}
    if user_id not in locked or locked[user_id].erased_at is not None:
        raise NotFoundError("there is no such person")
    if user_id == actor.pk:
        raise OwnAccountError(f"you cannot {verb} yourself")
    if actor.pk not in locked or not locked[actor.pk].may(Role.ADMIN):
        raise ForbiddenError("you are no Admin any more")
    return locked[user_id]


def set_password(
    *, username: str, password: str, actor: User | None, must_change: bool
) -> User:
    """Give a person another password, and end every login and token of theirs.

    Args:
        must_change: whether the person has to choose another one after the login.

    Raises:
        NotFoundError: nobody has this name.
        OwnAccountError: it is the actor's own, whose change asks for the old one.
        WeakPasswordError: the password is too weak.
        PasswordChangedError: it was changed at the same time.
    """
    found = User.objects.filter(username=username).first()
    if found is None:
        raise NotFoundError(f"there is no person {username!r}")
    if actor is not None and actor.pk == found.pk:
        raise OwnAccountError("change yours from the menu at your name")
    new = _prepare_password(found, password)
    with transaction.atomic():
        user = User.objects.select_for_update(no_key=True).get(pk=found.pk)
        _write_password(user, new, must_change=must_change)
        end_personal_tokens(user)
        audit.record(
            actor=actor,
            verb="person.password-set",
            object_kind="person",
            object_id=user.pseudonym,
            changed=user,
        )
    return user


def change_own_password(*, user: User, current: str, new: str) -> User:
    """Change the password of the person who asks, and end every login of theirs.

    Raises:
        WrongPasswordError: `current` is not their password.
        WeakPasswordError: the new one is too weak, or the same.
        PasswordChangedError: it was changed at the same time.
    """
    found = User.objects.get(pk=user.pk)
    if not found.check_password(current):
        raise WrongPasswordError("this is not the present password")
    if current == new:
        raise WeakPasswordError("the new password is the present one")
    prepared = _prepare_password(found, new)
    with transaction.atomic():
        locked = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        _write_password(locked, prepared, must_change=False)
        audit.record(
            actor=locked,
            verb="person.password-changed",
            object_kind="person",
            object_id=locked.pseudonym,
        )
    return locked


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A password that a person may take.

    Attributes:
        hashed: its hash.
        replaces: the hash of the one that the person had when it was checked.
    """

    hashed: str
    replaces: str


def _prepare_password(user: User, password: str) -> NewPassword:
    """Check and hash a password, before the transaction that writes it.

    A hash is slow by intention, and nobody shall wait for it at a lock.

    Raises:
        WeakPasswordError: it is too weak, or among the person's last ones.
    """
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise WeakPasswordError(" ".join(error.messages)) from error
    kept = settings.PASSWORD_HISTORY
    if kept:
        former = _former_passwords(user).values_list("password", flat=True)
        last = [user.password, *former[: kept - 1]]
        if any(check_password(password, each) for each in last):
            raise WeakPasswordError(
                f"the new password is one of the last {counted(kept, 'password')}"
            )
    return NewPassword(make_password(password), replaces=user.password)


def _former_passwords(user: User) -> QuerySet[FormerPassword]:
    return user.former_passwords.order_by("-replaced_at", "-pk")


def _write_password(user: User, new: NewPassword, *, must_change: bool) -> None:
    """Give a locked person a password, and end their logins.

    Raises:
        PasswordChangedError: they have another one than when it was checked.
    """
    if user.password != new.replaces:
        raise PasswordChangedError("the password was changed meanwhile; try again")
    _keep_history(user)
    user.password = new.hashed
    user.must_change_password = must_change
    user.password_set_at = timezone.now()
    user.save(update_fields=["password", "must_change_password", "password_set_at"])
    end_logins(user)


def _keep_history(user: User) -> None:
    """Remember the present password of a person, and forget what is too old."""
    kept = settings.PASSWORD_HISTORY
    if kept:
        FormerPassword.objects.create(
            user=user, password=user.password, replaced_at=timezone.now()
        )
    former = _former_passwords(user).values_list("pk", flat=True)
    outlived = list(former[max(0, kept - 1) :])
    FormerPassword.objects.filter(pk__in=outlived).delete()


def set_own_password(*, user: User, password: str) -> None:
    """Set the password of whoever has shown the link of an invitation.

    Raises:
        WeakPasswordError: it is too weak.
        PasswordChangedError: it was changed at the same time.
    """
    prepared = _prepare_password(User.objects.get(pk=user.pk), password)
    with transaction.atomic():
        locked = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        _write_password(locked, prepared, must_change=False)
        audit.record(
            actor=locked,
            verb="person.password-changed",
            object_kind="person",
            object_id=locked.pseudonym,
        )


def admit_from_provider(*, user: User, role: Role) -> None:
    """Give a person of the single sign-on, who is new, a role; in a transaction."""
    user.is_staff = True
    user.save(update_fields=["is_staff"])
    user.groups.set([Group.objects.get(name=role.value)])
    audit.record(
        actor=None,
        verb="person.created",
        object_kind="person",
        object_id=user.pseudonym,
        details={"role": role.value, "via": "sso"},
    )


def give_role_of_provider(*, user: User, role: Role) -> None:
    """Give a person the role that the provider of the single sign-on says.

    Raises:
        LastAdminError: nobody else is an Admin.
    """
    with transaction.atomic():
        _take_turn()
        locked = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        details = _give_role(locked, role)
        if details:
            _keep_an_admin()
            audit.record(
                actor=None,
                verb="person.changed",
                object_kind="person",
                object_id=locked.pseudonym,
                details=details,
            )


def _give_role(user: User, role: Role) -> dict[str, Any]:
    """Give a locked person a role; return what has changed, for the trail."""
    former = held_role(user)
    if former == role:
        return {}
    user.is_superuser = False
    user.save(update_fields=["is_superuser"])
    user.groups.set([Group.objects.get(name=role.value)])
    return {"role": {"from": former and former.value, "to": role.value}}


def _take_turn() -> None:
    """Let one at a time change who is an Admin, for the rest of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PEOPLE_CHANGE])


def _keep_an_admin() -> None:
    """Refuse what has left nobody who may do everything.

    Raises:
        LastAdminError: the transaction has to be undone.
    """
    admins = Q(groups__name=Role.ADMIN.value) | Q(is_superuser=True)
    if not User.objects.filter(admins, is_active=True).exists():
        raise LastAdminError("this is the last Admin: give another person the role")


def end_personal_tokens(user: User) -> None:
    """End the personal access tokens of a person."""
    PersonalToken.objects.filter(user=user, revoked_at__isnull=True).update(
        revoked_at=timezone.now()
    )


def end_logins(user: User, *, but: str | None = None) -> None:
    """End the sessions and the refresh tokens of a person.

    Args:
        but: the key of a session that goes on.
    """
    ConsoleSession.objects.filter(user=user).exclude(session_key=but).delete()
    RefreshToken.objects.filter(user=user, revoked_at__isnull=True).update(
        revoked_at=timezone.now()
    )


def ensure_first_admin(*, username: str, password: str) -> bool:
    """Create the first Admin where there is none yet; tell whether it did.

    Raises:
        WeakPasswordError: the password is too weak.
    """
    ensure_groups()
    if User.objects.filter(groups__name=Role.ADMIN.value).exists():
        return False
    try:
        validate_password(password, User(username=username))
    except ValidationError as error:
        raise WeakPasswordError(" ".join(error.messages)) from error
    create_person(username=username, password=password, role=Role.ADMIN, actor=None)
    return True
