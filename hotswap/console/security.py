"""What pages may load: nothing from elsewhere, and nothing that stands in the page.

Rules:
- No script may stand in a page, and a style only under the nonce of its answer; none
  in an attribute. Widths of bars are attributes of SVG, which are no style.
- The pages of the console may evaluate expressions, which Alpine and htmx live from; no
  other page may.
"""

from csp.constants import UNSAFE_EVAL
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

# Of what is no page: made once, as devices ask for it all day.
BARE_POLICY = "default-src 'self'; object-src 'none'; frame-ancestors 'none'"


class ContentSecurityMiddleware(CSPMiddleware):
    """The policy of the settings, wider in the console and short where no page is."""

    _console = ""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            response.headers.setdefault("Content-Security-Policy", BARE_POLICY)
            return response
        return super().process_response(request, response)

    def get_policy_parts(
        self,
        request: HttpRequest,
        response: HttpResponseBase,
        report_only: bool = False,
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        # Asked for here, as addresses are not known yet when this is made.
        self._console = self._console or reverse("admin:index")
        if request.path.startswith(self._console):
            parts.update = {"script-src": [UNSAFE_EVAL]}
        return parts
