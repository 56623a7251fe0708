"""What pages may load: nothing from elsewhere, and no inline script."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

# Styles: Unfold's theme colours and htmx's indicator are `<style>` elements, and the
# API's documentation has one too. Scripts: Alpine and htmx evaluate expressions.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


CONSOLE_POLICY = f"{POLICY}; script-src 'self' 'unsafe-eval'"


class ContentSecurityMiddleware:
    """Tell browsers to load nothing from elsewhere and to run no inline script."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.console = ""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # Asked for here, as addresses are not known yet when this is made.
        self.console = self.console or reverse("admin:index")
        is_console = request.path.startswith(self.console)
        response.headers.setdefault(
            "Content-Security-Policy", CONSOLE_POLICY if is_console else POLICY
        )
        return response
