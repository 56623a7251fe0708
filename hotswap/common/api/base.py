"""Base of every view of the API."""

from typing import Any, ClassVar, cast

from django.conf import settings
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from hotswap.common.api.filters import (
    PAGE_PARAMETERS,
    RepeatableFilter,
    check_parameters,
)
from hotswap.common.api.parsers import SMALL_BODY_BYTES
from hotswap.common.api.permissions import RolePermission
from hotswap.common.api.throttling import check_person_rate
from hotswap.common.errors import LengthRequiredError
from hotswap.common.models import User
from hotswap.common.roles import Role

Roles = dict[str, Role | tuple[Role, ...]]


class OneForm(BaseContentNegotiation):
    """Each route answers in one form, whatever `Accept` says (RFC 9110, 12.5.1)."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


def acting_person(request: Request) -> User:
    """Return the person who calls a route that only people may call."""
    return cast(User, request.user)


class ApiView(APIView):
    """A view that names its roles and its query parameters.

    Attributes:
        rates: for each method that costs much, the setting that says how often a
            person may use it in a minute, beside the limit of all requests.
        is_routine: every device calls it all day, so that few of its traces are kept.
        is_piecewise: it gives a file piece by piece, so that of a trace that leads to
            it few spans are kept.
    """

    permission_classes = [RolePermission]
    content_negotiation_class = OneForm
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    roles: ClassVar[Roles] = {}
    query_parameters: ClassVar[frozenset[str]] = frozenset()
    rates: ClassVar[dict[str, str]] = {}
    is_routine: ClassVar[bool] = False
    is_piecewise: ClassVar[bool] = False

    @property
    def max_body_bytes(self) -> int:
        """How long a JSON body may be: short unless it comes from a person."""
        needed = self.roles.get(str(self.request.method), ())
        wanted = needed if isinstance(needed, tuple) else (needed,)
        if Role.ANYONE in wanted or Role.DEVICE in wanted:
            return SMALL_BODY_BYTES
        return int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if isinstance(request.user, User):
            person = request.user.pseudonym
            check_person_rate(person, "PERSON_REQUESTS_PER_MINUTE")
            if rate := self.rates.get(str(request.method)):
                check_person_rate(person, rate)
        if "Transfer-Encoding" in request.headers and (
            "Content-Length" not in request.headers
        ):
            # Without a length, WSGI shows the body as empty.
            raise LengthRequiredError("send the body with its Content-Length")
        check_parameters(
            request, self.known_parameters(request), self.repeatable_parameters()
        )

    def get_authenticate_header(self, request: Request) -> str:
        """Answer 401 also where a login fails, on routes without authentication."""
        return 'Bearer realm="hotswap"'

    def known_parameters(self, request: Request) -> set[str]:
        """Return the query parameters of this route and method."""
        return set(self.query_parameters)

    def repeatable_parameters(self) -> set[str]:
        """Return the query parameters that may be given more than once."""
        return set()

    @staticmethod
    def validated(serializer_class: type[Serializer[Any]], data: Any) -> dict[str, Any]:
        """Validate a body; errors answer 400 and name each field."""
        serializer = serializer_class(data=data)
        serializer.is_valid(raise_exception=True)
        found: dict[str, Any] = serializer.validated_data
        return found


class ListView(ApiView, GenericAPIView):
    """A view with a filtered and paged list on GET."""

    output_class: ClassVar[type[Serializer[Any]]]
    filterset_class: ClassVar[type[Any] | None] = None
    ordering: str

    @property
    def paginator(self) -> Any:
        paginator: Any = super().paginator
        name = self.ordering.removeprefix("-")
        sign = self.ordering.removesuffix(name)
        view: Any = self
        is_unique = view.queryset.model._meta.get_field(name).unique
        # Rows of one position need an order of their own, or pages lose some of them.
        tie_breaker = () if is_unique else (f"{sign}pk",)
        paginator.ordering = (self.ordering, *tie_breaker)
        return paginator

    def known_parameters(self, request: Request) -> set[str]:
        if request.method not in ("GET", "HEAD"):
            return set()
        filters = self.filterset_class.base_filters if self.filterset_class else {}
        return set(PAGE_PARAMETERS) | set(filters)

    def repeatable_parameters(self) -> set[str]:
        filters = self.filterset_class.base_filters if self.filterset_class else {}
        return {
            name
            for name, found in filters.items()
            if isinstance(found, RepeatableFilter)
        }

    def get_serializer_class(self) -> type[Serializer[Any]]:
        return self.output_class

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        rows = self.filter_queryset(self.get_queryset())
        page = self.paginate_queryset(rows)
        return self.get_paginated_response(self.page_data(page or []))

    def page_data(self, rows: Any) -> Any:
        """Serialize one page."""
        return self.output_class(
            rows, many=True, context={"request": self.request}
        ).data
