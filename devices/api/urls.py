"""Routes of the devices app, below `/api/v1`."""

from django.urls import path

from devices.api import enrolments, imports, views

urlpatterns = [
    path("auth/device-token", views.DeviceTokenView.as_view(), name="device-token"),
    path("devices", views.DevicesView.as_view(), name="devices"),
    path("devices/import", imports.ImportDevicesView.as_view(), name="devices-import"),
    path("devices/export", views.ExportDevicesView.as_view(), name="devices-export"),
    path("device-imports", imports.ImportsView.as_view(), name="device-imports"),
    path(
        "device-imports/<uuid:import_id>",
        imports.ImportView.as_view(),
        name="device-import",
    ),
    path(
        "device-imports/<uuid:import_id>/keys",
        imports.ImportKeysView.as_view(),
        name="device-import-keys",
    ),
    path("devices/<str:device_id>", views.DeviceView.as_view(), name="device"),
    path(
        "devices/<str:device_id>/export",
        views.ExportDeviceView.as_view(),
        name="device-export",
    ),
    path(
        "devices/<str:device_id>/firmware-history",
        views.FirmwareHistoryView.as_view(),
        name="device-firmware-history",
    ),
    path(
        "devices/<str:device_id>/enable",
        views.EnableDeviceView.as_view(enabled=True),
        name="device-enable",
    ),
    path(
        "devices/<str:device_id>/disable",
        views.EnableDeviceView.as_view(enabled=False),
        name="device-disable",
    ),
    path(
        "devices/<str:device_id>/revoke",
        views.RevokeDeviceView.as_view(),
        name="device-revoke",
    ),
    path(
        "devices/<str:device_id>/api-key",
        views.ApiKeyView.as_view(),
        name="device-api-key",
    ),
    path(
        "devices/<str:device_id>/acknowledge-alarm",
        views.AcknowledgeAlarmView.as_view(),
        name="device-acknowledge-alarm",
    ),
    path(
        "devices/<str:device_id>/certificates",
        views.CertificatesView.as_view(),
        name="device-certificates",
    ),
    path(
        "devices/<str:device_id>/certificates/<str:fingerprint>",
        views.CertificateView.as_view(),
        name="device-certificate",
    ),
    path("device-groups", views.GroupsView.as_view(), name="device-groups"),
    path(
        "device-groups/preview",
        views.GroupPreviewView.as_view(),
        name="device-group-preview",
    ),
    path(
        "device-groups/<uuid:group_id>", views.GroupView.as_view(), name="device-group"
    ),
    path(
        "device-groups/<uuid:group_id>/devices",
        views.GroupMembersView.as_view(),
        name="device-group-devices",
    ),
    path(
        "enrolment-tokens",
        enrolments.EnrolmentTokensView.as_view(),
        name="enrolment-tokens",
    ),
    path(
        "enrolment-tokens/<uuid:token_id>",
        enrolments.EnrolmentTokenView.as_view(),
        name="enrolment-token",
    ),
    path(
        "enrolment-tokens/<uuid:token_id>/revoke",
        enrolments.RevokeEnrolmentTokenView.as_view(),
        name="enrolment-token-revoke",
    ),
    path("enrolments", enrolments.EnrolmentsView.as_view(), name="enrolments"),
    path(
        "enrolments/<uuid:enrolment_id>/approve",
        enrolments.DecideEnrolmentView.as_view(is_approval=True),
        name="enrolment-approve",
    ),
    path(
        "enrolments/<uuid:enrolment_id>/reject",
        enrolments.DecideEnrolmentView.as_view(is_approval=False),
        name="enrolment-reject",
    ),
]
