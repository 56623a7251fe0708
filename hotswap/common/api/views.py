"""Login, refresh, and the audit trail."""

from typing import Any

import django_filters
from django.contrib.auth import authenticate
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response

from hotswap.common.account_gate import used_second_factor
from hotswap.common.api.base import ApiView, ListView, acting_person
from hotswap.common.api.filters import (
    ChoiceFilter,
    StrictFilterBackend,
    ZonedTimeFilter,
)
from hotswap.common.api.serializers import CamelSerializer, StrictCharField
from hotswap.common.api.throttling import guard_password
from hotswap.common.login_audit import API, note_failure, note_login
from hotswap.common.logins import revoke_refresh_token
from hotswap.common.models import AuditEvent, User
from hotswap.common.people import change_own_password
from hotswap.common.roles import Role
from hotswap.common.second_factors import guard_code, has_second_factor
from hotswap.common.tokens import TokenPair, issue_token_pair, rotate_refresh_token
from hotswap.common.trail.export import SENT_AS, Form, export_response


class LoginInput(CamelSerializer):
    username = StrictCharField(max_length=150)
    password = StrictCharField(max_length=1024, trim_whitespace=False)
    code = StrictCharField(
        max_length=32,
        required=False,
        help_text="of the second factor: of an authenticator app, or a recovery code",
    )


class RefreshInput(CamelSerializer):
    refresh = StrictCharField(max_length=256)


class PasswordInput(CamelSerializer):
    current_password = StrictCharField(max_length=1024, trim_whitespace=False)
    new_password = StrictCharField(max_length=1024, trim_whitespace=False)


class TokenPairOutput(CamelSerializer):
    access = serializers.CharField()
    refresh = serializers.CharField()
    expires_in = serializers.IntegerField(source="expires_in_seconds")
    role = serializers.CharField()


def _pair(pair: TokenPair) -> Response:
    return Response(TokenPairOutput(pair).data, headers={"Cache-Control": "no-store"})


class LoginView(ApiView):
    roles = {"POST": Role.ANYONE}
    authentication_classes = []

    @extend_schema(request=LoginInput, responses=TokenPairOutput)
    def post(self, request: Request) -> Response:
        """Exchange a name and password for an access and a refresh token.

        A person with a second factor sends its `code` as well; without it the answer is
        401 `second_factor_required`. Programs use a personal access token instead.
        """
        given = self.validated(LoginInput, request.data)

        def attempt() -> User | None:
            user = authenticate(
                request._request,
                username=given["username"],
                password=given["password"],
            )
            return user if isinstance(user, User) and user.role else None

        user = guard_password(request, given["username"], attempt)
        if user is None:
            raise AuthenticationFailed(
                "the name or the password is wrong", code="login_failed"
            )
        second_factor = has_second_factor(user)
        if second_factor:
            self._check_code(request, user, given.get("code"))
        note_login(user, via=API, second_factor=second_factor)
        return _pair(issue_token_pair(user=user, second_factor=second_factor))

    @staticmethod
    def _check_code(request: Request, user: User, code: str | None) -> None:
        if code is None:
            raise AuthenticationFailed(
                "this account has a second factor: send its code too",
                code="second_factor_required",
            )
        if guard_code(request, user, code) is None:
            note_failure(user)
            raise AuthenticationFailed(
                "the code is wrong, or was used before", code="second_factor_wrong"
            )


class RefreshView(ApiView):
    roles = {"POST": Role.ANYONE}
    authentication_classes = []

    @extend_schema(request=RefreshInput, responses=TokenPairOutput)
    def post(self, request: Request) -> Response:
        """Exchange a refresh token, once, for a new pair."""
        given = self.validated(RefreshInput, request.data)
        pair = rotate_refresh_token(refresh=given["refresh"], now=timezone.now())
        if pair is None:
            raise AuthenticationFailed(
                "the refresh token is not valid", code="token_invalid"
            )
        return _pair(pair)


class LogoutView(ApiView):
    roles = {"POST": Role.ANYONE}
    authentication_classes = []

    @extend_schema(request=RefreshInput, responses={204: None})
    def post(self, request: Request) -> Response:
        """End the login that a refresh token belongs to.

        The access token lives on until its end, 15 minutes at most. A refresh token
        that is unknown or has ended is answered alike.
        """
        given = self.validated(RefreshInput, request.data)
        revoke_refresh_token(refresh=given["refresh"], now=timezone.now())
        return Response(status=204)


class PasswordView(ApiView):
    roles = {"POST": Role.VIEWER}
    is_open_to_held_accounts = True

    @extend_schema(request=PasswordInput, responses=TokenPairOutput)
    def post(self, request: Request) -> Response:
        """Change one's own password: all logins end, and a new one begins.

        It is the way out for whoever is refused with `password_change_required`.
        """
        given = self.validated(PasswordInput, request.data)
        person = acting_person(request)
        changed = guard_password(
            request,
            person.username,
            lambda: change_own_password(
                user=person,
                current=given["current_password"],
                new=given["new_password"],
            ),
        )
        assert changed is not None
        return _pair(
            issue_token_pair(user=changed, second_factor=used_second_factor(request))
        )


class AuditFilter(django_filters.FilterSet):
    actor = django_filters.UUIDFilter()
    verb = django_filters.CharFilter(max_length=64)
    objectKind = django_filters.CharFilter("object_kind")
    objectId = django_filters.CharFilter("object_id")
    to = ZonedTimeFilter("at", "lt")


# `from` is a word of the language, so it cannot be declared as an attribute.
AuditFilter.base_filters["from"] = ZonedTimeFilter("at", "gte")


class AuditExportFilter(AuditFilter):
    form = ChoiceFilter(
        choices=[(form.value, form.value) for form in Form],
        method="keep_all",
        help_text="`ndjson`, which is the default, or `csv` in a zip.",
    )

    def keep_all(self, rows: Any, name: str, value: str) -> Any:
        return rows


AuditExportFilter.base_filters["from"] = AuditFilter.base_filters["from"]


class AuditOutput(CamelSerializer):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    actor_kind = serializers.CharField()
    actor = serializers.UUIDField(allow_null=True)
    actor_name = serializers.SerializerMethodField(method_name="get_actor_name")
    verb = serializers.CharField()
    object_kind = serializers.CharField()
    object_id = serializers.CharField()
    details = serializers.DictField()

    def get_actor_name(self, row: AuditEvent) -> str | None:
        names: dict[Any, str] = self.context["names"]
        return names.get(row.actor)


class AuditExportView(ApiView):
    roles = {"GET": Role.ADMIN}
    rates = {"GET": "EXPORTS_PER_MINUTE"}
    queryset = AuditEvent.objects.all()
    filterset_class = AuditExportFilter
    filter_backends = [StrictFilterBackend]

    def known_parameters(self, request: Request) -> set[str]:
        return set(AuditExportFilter.base_filters)

    @extend_schema(
        filters=True,
        responses={
            (200, content_type): OpenApiTypes.BINARY
            for content_type, _ in SENT_AS.values()
        },
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Give out the trail, filtered as the list is, with its signature.

        As NDJSON, which `hotswap audit verify --export FILE` checks on any machine; by
        `form=csv` as CSV in a zip, which `hotswap evidence verify FILE` checks.
        """
        rows = StrictFilterBackend().filter_queryset(request, self.queryset.all(), self)
        return export_response(
            rows,
            actor=acting_person(request),
            query=dict(request.query_params.items()),
            now=timezone.now(),
            form=Form(request.query_params.get("form", Form.NDJSON)),
        )


class AuditView(ListView):
    """What people did and the server decided, newest first."""

    roles = {"GET": Role.ADMIN}
    queryset = AuditEvent.objects.all()
    filterset_class = AuditFilter
    output_class = AuditOutput
    ordering = "-id"

    def page_data(self, rows: list[AuditEvent]) -> Any:
        # Names are joined when read: the rows themselves hold pseudonyms only.
        actors = {row.actor for row in rows if row.actor}
        names = dict(
            User.objects.filter(pseudonym__in=actors).values_list(
                "pseudonym", "username"
            )
        )
        return AuditOutput(rows, many=True, context={"names": names}).data
