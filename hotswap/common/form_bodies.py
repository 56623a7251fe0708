"""What may be sent to pages: little to most, a file by Admins to where files are taken.

Django's check against forged requests reads a form, and would store the files in it,
before anybody asks who has sent it. So:

- Outside of the API a body has 2 MiB at most, and no file in it is kept.
- A form that could not be read is told as that, and not as a forged one.
- At the addresses of `UPLOAD_ADDRESSES` an Admin who is logged in may send more, and
  nobody else anything. One that takes the image of a firmware reads it by itself; a
  file of devices is stored by Django and has as many bytes as an import may have.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.files.uploadhandler import (
    FileUploadHandler,
    MemoryFileUploadHandler,
    SkipFile,
    TemporaryFileUploadHandler,
)
from django.http import HttpRequest, HttpResponse
from django.views.csrf import csrf_failure

from hotswap.common.api.middleware import answer_unread_form, is_of_api
from hotswap.common.body_timeouts import body_failure, content_length
from hotswap.common.models import User
from hotswap.common.roles import Role

# Of a form beside its file.
FORM_BYTES = 1024 * 1024


class NoFiles(FileUploadHandler):
    """Drops every file while it arrives."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        return None

    def file_complete(self, file_size: int) -> None:
        return None


class FormBodyMiddleware:
    """Refuses long bodies (413) and files; takes those of Admins where they belong."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = content_length(request.META)
        if length and not is_of_api(request):
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            if request.path in settings.UPLOAD_ADDRESSES:
                if not _is_of_admin(request):
                    # Bodies are waited for longer here.
                    raise PermissionDenied
                limit = FORM_BYTES + max(
                    settings.IMPORT_MAX_BYTES, settings.FIRMWARE_MAX_BYTES
                )
                # Typed as those of the settings alone.
                handlers: Any = [
                    MemoryFileUploadHandler(request),
                    _CappedFileHandler(request),
                ]
                request.upload_handlers = handlers
            if length > limit:
                return HttpResponse(
                    f"The form is too large: {limit} bytes at most.",
                    status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    content_type="text/plain; charset=utf-8",
                )
        return self.get_response(request)


class _CappedFileHandler(TemporaryFileUploadHandler):
    """Stores a file; of one that is too long no more than shows that it is."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if start <= settings.IMPORT_MAX_BYTES:
            super().receive_data_chunk(raw_data, start)


def answer_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse a form without its token, which is missing from one that was not read."""
    if body_failure(request) is not None:
        return answer_unread_form(request)
    return csrf_failure(request, reason)


def _is_of_admin(request: HttpRequest) -> bool:
    return isinstance(request.user, User) and request.user.may(Role.ADMIN)
