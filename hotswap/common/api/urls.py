"""Routes of the common app, below `/api/v1`."""

from django.urls import path

from hotswap.common.api import views

urlpatterns = [
    path("auth/token", views.LoginView.as_view(), name="login"),
    path("auth/refresh", views.RefreshView.as_view(), name="refresh"),
    path("auth/logout", views.LogoutView.as_view(), name="logout"),
    path("auth/password", views.PasswordView.as_view(), name="password"),
    path("audit-events", views.AuditView.as_view(), name="audit-events"),
]
