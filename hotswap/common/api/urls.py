"""Routes of the common app, below `/api/v1`."""

from django.urls import path

from hotswap.common.api import views

urlpatterns = [
    path("auth/token", views.LoginView.as_view(), name="login"),
    path("auth/refresh", views.RefreshView.as_view(), name="refresh"),
    path("audit-events", views.AuditView.as_view(), name="audit-events"),
]
