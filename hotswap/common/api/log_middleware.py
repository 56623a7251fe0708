"""One line of the log for what is refused or fails, with the context of its request."""

from django.http import HttpRequest, HttpResponse
from django_structlog.middlewares import RequestMiddleware

from hotswap.common.api.middleware import trace_id_of
from hotswap.common.log_context import bind


class RequestLogMiddleware(RequestMiddleware):
    """Binds the id of the request, and logs once what failed."""

    def prepare(self, request: HttpRequest) -> None:
        # That of a problem document, if it comes to that.
        bind(trace_id=trace_id_of(request))
        super().prepare(request)

    def handle_response(self, request: HttpRequest, response: HttpResponse) -> None:
        super().handle_response(request, response)
        # So that Django's own line of it is left out.
        request.is_logged = True  # type: ignore[attr-defined]

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        """Name a request without its query, which can hold anything."""
        return f"{request.method} {request.path}"

    @staticmethod
    def bind_user_id(request: HttpRequest) -> None:
        """Bind who is logged in to the console, if that has been looked up anyway."""
        user = getattr(request, "_cached_user", None)
        if pseudonym := getattr(user, "pseudonym", None):
            bind(user_id=str(pseudonym))
