"""Giving out all that is held about a person, as one JSON document.

Rules:
- No secret is in it, neither in clear nor hashed: it may lie in a folder of downloads.
- Other apps hold data of people too; they are asked by the hooks of the settings.
- What somebody did is told as the audit trail has it: uploads, decisions and launches
  too. Other people stay pseudonyms.

Source: Compliance, GDPR 15 and 20.
"""

from collections.abc import Iterator
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db.models import Q
from django.http import StreamingHttpResponse
from django.utils import timezone
from django.utils.module_loading import import_string

from hotswap.common import audit
from hotswap.common.json_pieces import Sections, json_file, json_pieces
from hotswap.common.models import (
    AuditEvent,
    ConsoleSession,
    PersonalToken,
    RefreshToken,
    User,
)
from hotswap.common.people import held_role

CHUNK = 500


def personal_data_file(*, actor: User, person: User) -> StreamingHttpResponse:
    """Send all that is held about a person, as a file, while it is read.

    That it was given out is audited.
    """
    audit.record(
        actor=actor,
        verb="person.exported",
        object_kind="person",
        object_id=person.pseudonym,
    )
    return json_file(export_person(person), f"person-{person.username}.json")


def export_person(person: User) -> Iterator[str]:
    """Give out all that is held about a person, as the pieces of one document."""
    head = {"exportedAt": timezone.now(), "person": _account(person)}
    return json_pieces(head, _sections(person))


def _account(person: User) -> dict[str, Any]:
    role = held_role(person)
    return {
        "id": person.pseudonym,
        "username": person.username,
        "firstName": person.first_name,
        "lastName": person.last_name,
        "email": person.email,
        "role": role.value if role else None,
        "enabled": person.is_active,
        "createdAt": person.date_joined,
        "lastLoginAt": person.last_login,
        "hasPassword": person.has_usable_password(),
        "passwordSetAt": person.password_set_at,
        "mustChangePassword": person.must_change_password,
        "formerPasswordsKept": person.former_passwords.count(),
    }


def _sections(person: User) -> Sections:
    yield (
        "emailAddresses",
        (
            {"email": row.email, "verified": row.verified}
            for row in EmailAddress.objects.filter(user=person).order_by("pk")
        ),
    )
    yield (
        "secondFactors",
        (
            {
                "type": row.type,
                "name": row.data.get("name"),
                "createdAt": row.created_at,
                "lastUsedAt": row.last_used_at,
            }
            for row in Authenticator.objects.filter(user=person).order_by("pk")
        ),
    )
    yield (
        "singleSignOn",
        (
            {
                "provider": row.provider,
                "subject": row.uid,
                "createdAt": row.date_joined,
                "lastLoginAt": row.last_login,
                "claims": row.extra_data,
            }
            for row in SocialAccount.objects.filter(user=person).order_by("pk")
        ),
    )
    yield (
        "consoleSessions",
        (
            {
                "id": row.public_id,
                "beganAt": row.created_at,
                "lastSeenAt": row.last_seen_at,
                "endsAt": row.expire_date,
                "address": row.address,
                "userAgent": row.user_agent,
            }
            for row in ConsoleSession.objects.filter(user=person).order_by("created_at")
        ),
    )
    yield (
        "apiLogins",
        (
            {
                "login": row.family,
                "createdAt": row.created_at,
                "expiresAt": row.expires_at,
                "usedAt": row.used_at,
                "revokedAt": row.revoked_at,
                "secondFactor": row.second_factor,
            }
            for row in RefreshToken.objects.filter(user=person)
            .order_by("pk")
            .iterator(CHUNK)
        ),
    )
    yield (
        "accessTokens",
        (
            {
                "id": row.pk,
                "name": row.name,
                "role": row.role,
                "createdAt": row.created_at,
                "expiresAt": row.expires_at,
                "lastUsedAt": row.last_used_at,
                "revokedAt": row.revoked_at,
            }
            for row in PersonalToken.objects.filter(user=person).order_by("created_at")
        ),
    )
    for hook in settings.PERSON_EXPORT_HOOKS:
        yield from import_string(hook)(person=person)
    by_or_about = Q(actor=person.pseudonym) | Q(
        object_kind="person", object_id=str(person.pseudonym)
    )
    yield (
        "auditEvents",
        (
            {
                "id": row.pk,
                "at": row.at,
                "actorKind": row.actor_kind,
                "actor": row.actor,
                "verb": row.verb,
                "objectKind": row.object_kind,
                "objectId": row.object_id,
                "details": row.details,
            }
            for row in AuditEvent.objects.filter(by_or_about)
            .order_by("pk")
            .iterator(CHUNK)
        ),
    )
