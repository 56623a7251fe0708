"""All addresses. The API is composed here from the apps."""

import threading
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from devices.api.authentication import DeviceAuthentication
from hotswap import operations
from hotswap.common.api.authentication import PersonAuthentication
from hotswap.common.api.permissions import RolePermission
from hotswap.common.roles import Role
from hotswap.console.bell import bell_view
from hotswap.console.index import overview_charts_view, overview_live_view
from hotswap.console.mailbox import mailbox_view
from hotswap.console.manual import manual_view
from hotswap.console.retention import retention_view
from hotswap.console.search import search_view
from hotswap.console.system import system_view

admin.autodiscover()

# A person who is logged in to the console may open the description in the browser.
READERS = [PersonAuthentication, DeviceAuthentication, SessionAuthentication]


class SchemaView(SpectacularAPIView):
    """The description of the API, made once in each process: it costs seconds."""

    authentication_classes = READERS
    permission_classes = [RolePermission]
    roles = {"GET": Role.VIEWER}
    # Content and headers by the form that is asked for.
    made: ClassVar[dict[str, tuple[bytes, dict[str, str]]]] = {}
    making: ClassVar[threading.Lock] = threading.Lock()

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer = request.accepted_renderer
        with self.making:
            found = self.made.get(renderer.format)
            if found is None:
                response = super().get(request, *args, **kwargs)
                response.accepted_renderer = renderer
                response.accepted_media_type = request.accepted_media_type
                response.renderer_context = self.get_renderer_context()
                response.render()
                found = response.content, dict(response.headers)
                self.made[renderer.format] = found
        content, headers = found
        return HttpResponse(content, headers=headers)


class DocsView(SpectacularSwaggerSplitView):
    authentication_classes = READERS
    permission_classes = [RolePermission]
    roles = {"GET": Role.VIEWER}


handler400 = "hotswap.common.api.middleware.answer_bad_request"
handler403 = "hotswap.console.refusals.answer_forbidden"
handler404 = "hotswap.console.refusals.answer_not_found"
handler500 = "hotswap.common.api.middleware.answer_server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", include("hotswap.common.account_urls")),
    path("admin/", include("hotswap.common.console.account")),
    path("admin/system/", admin.site.admin_view(system_view), name="system"),
    path(
        "admin/system/retention/",
        admin.site.admin_view(retention_view),
        name="retention",
    ),
    path(
        "admin/overview/live/",
        admin.site.admin_view(overview_live_view),
        name="overview-live",
    ),
    path(
        "admin/overview/charts/",
        admin.site.admin_view(overview_charts_view),
        name="overview-charts",
    ),
    path("admin/bell/", admin.site.admin_view(bell_view), name="bell"),
    path("admin/mailbox/", admin.site.admin_view(mailbox_view), name="mailbox"),
    path("admin/help/", admin.site.admin_view(manual_view), name="manual"),
    path("admin/help/<path:name>", admin.site.admin_view(manual_view), name="manual"),
    # In the place of Unfold's, which keeps what it has found for minutes.
    path("admin/search/", admin.site.admin_view(search_view), name="search"),
    path("admin/", admin.site.urls),
    path("health", operations.liveness, name="liveness"),
    path("health/ready", operations.readiness, name="readiness"),
    path("health/status", operations.StatusView.as_view(), name="status"),
    path("metrics", operations.MetricsView.as_view(), name="metrics"),
    path("api/v1/", include("hotswap.common.api.urls")),
    path("api/v1/", include("firmware.api.urls")),
    path("api/v1/", include("devices.api.urls")),
    path("api/v1/", include("health.api.urls")),
    path("api/v1/", include("deployments.api.urls")),
    path("api/v1/schema", SchemaView.as_view(), name="schema"),
    path("api/v1/docs", DocsView.as_view(url_name="schema"), name="docs"),
]
