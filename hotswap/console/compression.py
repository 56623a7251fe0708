"""Pages travel compressed."""

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

# What programs read is left alone: they send the ETag of an answer back with
# `If-Match`, and that of a compressed one is weak, which matches nothing there.
COMPRESSED = ("text/html", "application/vnd.oai.openapi")


class PageCompressionMiddleware(GZipMiddleware):
    """Compress pages, and the description of the API.

    Pages hold secrets beside what was sent to them (BREACH): the token of their forms
    is masked anew in each answer, and the length of an answer varies by chance.
    """

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        is_page = response.get("Content-Type", "").startswith(COMPRESSED)
        if response.streaming or not is_page:
            return response
        return super().process_response(request, response)
