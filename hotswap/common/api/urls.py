"""Routes of the common app, below `/api/v1`."""

from django.urls import path

from hotswap.common.api import audit_chain, people, views

urlpatterns = [
    path("auth/token", views.LoginView.as_view(), name="login"),
    path("auth/refresh", views.RefreshView.as_view(), name="refresh"),
    path("auth/logout", views.LogoutView.as_view(), name="logout"),
    path("auth/password", views.PasswordView.as_view(), name="password"),
    path("people", people.PeopleView.as_view(), name="people"),
    path("people/<uuid:person_id>", people.PersonView.as_view(), name="person"),
    path(
        "people/<uuid:person_id>/export",
        people.ExportPersonView.as_view(),
        name="export-person",
    ),
    path(
        "people/<uuid:person_id>/invite",
        people.InviteView.as_view(),
        name="invite-person",
    ),
    path(
        "people/<uuid:person_id>/reset-password",
        people.ResetPasswordView.as_view(),
        name="reset-password",
    ),
    path(
        "people/<uuid:person_id>/reset-second-factors",
        people.ResetFactorsView.as_view(),
        name="reset-second-factors",
    ),
    path(
        "people/<uuid:person_id>/disable",
        people.DisablePersonView.as_view(),
        name="disable-person",
    ),
    path(
        "people/<uuid:person_id>/enable",
        people.EnablePersonView.as_view(),
        name="enable-person",
    ),
    path("audit-events", views.AuditView.as_view(), name="audit-events"),
    path(
        "audit-events/export",
        views.AuditExportView.as_view(),
        name="audit-events-export",
    ),
    path(
        "audit-events/verify",
        audit_chain.AuditChainView.as_view(),
        name="audit-events-verify",
    ),
]
