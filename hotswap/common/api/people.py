"""People: `/people`. Each is named by the pseudonym that the audit trail has."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

import django_filters
from allauth.mfa.models import Authenticator
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from hotswap.common import people
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.filters import ChoiceFilter, TruthFilter
from hotswap.common.api.idempotency import idempotent, idempotent_without
from hotswap.common.api.proxy import public_url
from hotswap.common.api.serializers import (
    SHOWN_ONCE,
    CamelSerializer,
    EmptyInput,
    StrictCharField,
    StrictChoiceField,
)
from hotswap.common.api.signatures import ErasureInput, given_signature
from hotswap.common.invitations import invite_person
from hotswap.common.models import User
from hotswap.common.personal_data import personal_data_file
from hotswap.common.roles import PEOPLE, Role
from hotswap.common.second_factors import FACTORS
from hotswap.common.signatures import Meaning

ROLES = [(role.value, role.value) for role in PEOPLE]


class PersonFilter(django_filters.FilterSet):
    role = ChoiceFilter(choices=ROLES, field_name="groups__name")
    enabled = TruthFilter(field_name="is_active")
    search = django_filters.CharFilter(method="matching", max_length=150)

    def matching(self, rows: QuerySet[User], name: str, value: str) -> QuerySet[User]:
        return rows.filter(Q(username__icontains=value) | Q(email__icontains=value))


class StrictEmailField(serializers.EmailField):
    """JSON strings only."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        found: str = super().to_internal_value(data)
        return found


class PersonInput(CamelSerializer):
    username = StrictCharField(max_length=150, validators=[User.username_validator])
    role = StrictChoiceField(choices=ROLES)
    email = StrictEmailField(max_length=254, required=False, allow_blank=True)


class PersonChangeInput(CamelSerializer):
    role = StrictChoiceField(choices=ROLES, required=False)
    email = StrictEmailField(max_length=254, required=False, allow_blank=True)


class PersonOutput(CamelSerializer):
    id = serializers.UUIDField(source="pseudonym")
    username = serializers.CharField()
    email = serializers.CharField(allow_blank=True)
    role = serializers.SerializerMethodField(method_name="get_role")
    enabled = serializers.BooleanField(source="is_active")
    must_change_password = serializers.BooleanField()
    second_factor = serializers.BooleanField(source="with_factor")
    last_login_at = serializers.DateTimeField(source="last_login", allow_null=True)
    created_at = serializers.DateTimeField(source="date_joined")

    def get_role(self, person: User) -> str | None:
        role = people.held_role(person)
        return role.value if role else None


class NewPersonOutput(PersonOutput):
    password = serializers.CharField(
        allow_null=True,
        help_text=f"for one login, after which it must be changed; {SHOWN_ONCE}",
    )


class OneTimePasswordOutput(CamelSerializer):
    password = serializers.CharField(
        allow_null=True,
        help_text=f"for one login, after which it must be changed; {SHOWN_ONCE}",
    )


def shown_people() -> QuerySet[User]:
    """Return everybody who is not erased, with what their output needs."""
    factors = Authenticator.objects.filter(user=OuterRef("pk"), type__in=FACTORS)
    return (
        User.objects.filter(erased_at__isnull=True)
        .annotate(with_factor=Exists(factors))
        .prefetch_related("groups")
    )


def person_response(person: User, status: int = 200) -> Response:
    shown = shown_people().get(pk=person.pk)
    return Response(PersonOutput(shown).data, status=status)


class PeopleView(ListView):
    """Everybody who may log in, or might again."""

    roles = {"GET": Role.ADMIN, "POST": Role.ADMIN}
    filterset_class = PersonFilter
    output_class = PersonOutput
    ordering = "username"
    queryset = User.objects.all()

    def get_queryset(self) -> QuerySet[User]:
        return shown_people()

    @extend_schema(request=PersonInput, responses={201: NewPersonOutput})
    @idempotent_without("password")
    def post(self, request: Request) -> Response:
        """Create a person, with a password for the first login.

        The person must change it then. To let the person choose one, tell it nobody and
        send an invitation (`POST /people/{id}/invite`).
        """
        given = self.validated(PersonInput, request.data)
        password = people.one_time_password()
        person = people.create_person(
            username=given["username"],
            email=given.get("email", ""),
            role=Role(given["role"]),
            password=password,
            must_change=True,
            actor=acting_person(request),
        )
        shown = shown_people().get(pk=person.pk)
        return Response(
            {**PersonOutput(shown).data, "password": password},
            status=201,
            headers={
                "Location": f"/api/v1/people/{person.pseudonym}",
                "Cache-Control": "no-store",
            },
        )


class PersonView(ApiView):
    roles = {"GET": Role.ADMIN, "PATCH": Role.ADMIN, "DELETE": Role.ADMIN}

    @extend_schema(responses=PersonOutput)
    def get(self, request: Request, person_id: UUID) -> Response:
        """Show a person."""
        return person_response(people.find_person(person_id))

    @extend_schema(request=PersonChangeInput, responses=PersonOutput)
    def patch(self, request: Request, person_id: UUID) -> Response:
        """Give a person another role or address; it holds from the next request on."""
        given = self.validated(PersonChangeInput, request.data)
        person = people.find_person(person_id)
        held = people.held_role(person) or Role.VIEWER
        changed = people.change_person(
            actor=acting_person(request),
            user_id=person.pk,
            role=Role(given.get("role", held)),
            email=given.get("email", person.email),
        )
        return person_response(changed)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, person_id: UUID) -> Response:
        """Erase a person: name, address, logins, tokens and second factors.

        What the person did stays, under the pseudonym. It cannot be undone. Where it
        has to be signed, the body has a `signature` with the meaning `erasure`.
        """
        given = self.validated(ErasureInput, request.data)
        person = people.find_person(person_id)
        people.erase_person(
            actor=acting_person(request),
            user_id=person.pk,
            signature=given_signature(request, given, Meaning.ERASURE),
        )
        return Response(status=204)


class ExportPersonView(ApiView):
    roles = {"GET": Role.ADMIN}
    rates = {"GET": "EXPORTS_PER_MINUTE"}

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, person_id: UUID) -> StreamingHttpResponse:
        """Give out all that is held about a person, without secrets."""
        return personal_data_file(
            actor=acting_person(request), person=people.find_person(person_id)
        )


class PersonDeedView(ApiView):
    """A view of one thing that is done to a person, and asks nothing."""

    roles = {"POST": Role.ADMIN}
    deed: ClassVar[Callable[..., User]]

    @extend_schema(request=EmptyInput, responses=PersonOutput)
    @idempotent
    def post(self, request: Request, person_id: UUID) -> Response:
        self.validated(EmptyInput, request.data)
        person = people.find_person(person_id)
        done = type(self).deed(actor=acting_person(request), user_id=person.pk)
        return person_response(done)


class DisablePersonView(PersonDeedView):
    """Shut a person out everywhere at once."""

    @staticmethod
    def deed(*, actor: User, user_id: int) -> User:
        return people.set_person_active(actor=actor, user_id=user_id, is_active=False)


class EnablePersonView(PersonDeedView):
    """Let a person in again."""

    @staticmethod
    def deed(*, actor: User, user_id: int) -> User:
        return people.set_person_active(actor=actor, user_id=user_id, is_active=True)


class ResetFactorsView(PersonDeedView):
    """Take the second factors of a person away, who has lost them."""

    @staticmethod
    def deed(*, actor: User, user_id: int) -> User:
        return people.remove_second_factors(actor=actor, user_id=user_id)


class ResetPasswordView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=EmptyInput, responses=OneTimePasswordOutput)
    @idempotent_without("password")
    def post(self, request: Request, person_id: UUID) -> Response:
        """Give a person another password, for one login; all others end."""
        self.validated(EmptyInput, request.data)
        person = people.find_person(person_id)
        password = people.one_time_password()
        people.set_password(
            username=person.username,
            password=password,
            actor=acting_person(request),
            must_change=True,
        )
        return Response({"password": password}, headers={"Cache-Control": "no-store"})


class InviteView(ApiView):
    roles = {"POST": Role.ADMIN}

    @extend_schema(request=EmptyInput, responses={204: None})
    def post(self, request: Request, person_id: UUID) -> Response:
        """Mail a person a link to choose a password by; it works once, for 3 days."""
        self.validated(EmptyInput, request.data)
        invite_person(
            actor=acting_person(request),
            user=people.find_person(person_id),
            server=public_url(request),
        )
        return Response(status=204)
