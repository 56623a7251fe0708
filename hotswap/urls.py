"""All addresses. The API is composed here from the apps."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.authentication import SessionAuthentication

from devices.api.authentication import DeviceAuthentication
from hotswap import operations
from hotswap.common.api.authentication import PersonAuthentication
from hotswap.common.api.permissions import RolePermission
from hotswap.common.roles import Role

# A person who is logged in to the console may open the description in the browser.
READERS = [PersonAuthentication, DeviceAuthentication, SessionAuthentication]


class SchemaView(SpectacularAPIView):
    authentication_classes = READERS
    permission_classes = [RolePermission]
    roles = {"GET": Role.VIEWER}


class DocsView(SpectacularSwaggerSplitView):
    authentication_classes = READERS
    permission_classes = [RolePermission]
    roles = {"GET": Role.VIEWER}


handler400 = "hotswap.common.api.middleware.answer_bad_request"
handler500 = "hotswap.common.api.middleware.answer_server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("health", operations.liveness, name="liveness"),
    path("health/ready", operations.readiness, name="readiness"),
    path("metrics", operations.MetricsView.as_view(), name="metrics"),
    path("api/v1/", include("hotswap.common.api.urls")),
    path("api/v1/", include("firmware.api.urls")),
    path("api/v1/", include("devices.api.urls")),
    path("api/v1/", include("health.api.urls")),
    path("api/v1/", include("deployments.api.urls")),
    path("api/v1/schema", SchemaView.as_view(), name="schema"),
    path("api/v1/docs", DocsView.as_view(url_name="schema"), name="docs"),
]
