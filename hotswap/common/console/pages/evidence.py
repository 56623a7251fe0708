"""The page of what evidence is handed out about: one more button, one more address."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path

from hotswap.common.console.actions.base import Button, link_button
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.evidence.export import evidence_response
from hotswap.common.models import User
from hotswap.common.roles import Role


class EvidencePage(ConsoleAdmin):
    """Lets Admins download all that is known of an object as one signed file."""

    @abstractmethod
    def evidence(self, actor: User, obj: Any) -> Iterator[bytes]:
        """Give the bytes of the pack."""

    def more_urls(self) -> list[URLPattern]:
        return [
            path(
                "<path:object_id>/evidence/",
                self.protected(self.evidence_view),
                name=self.url_name("evidence"),
            )
        ]

    def buttons(self, user: User, obj: Any) -> list[Button]:
        shown = super().buttons(user, obj)
        if obj is None:
            return shown
        url = self.url("evidence", obj.pk)
        return [
            *shown,
            link_button(user, "Evidence", "folder_zip", url, Role.ADMIN),
        ]

    def evidence_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Send the pack; a GET that people follow, so `HEAD` writes no trail."""
        if request.method != "GET":
            return HttpResponseNotAllowed(("GET",))
        obj = self.found(request, object_id)
        actor = acting_person(request)
        if not actor.may(Role.ADMIN):
            raise PermissionDenied
        return evidence_response(
            f"{self.opts.model_name}-{obj.pk}", self.evidence(actor, obj)
        )
