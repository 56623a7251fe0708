"""Routes of the firmware app, below `/api/v1`."""

from django.urls import path

from firmware.api import sboms, views

urlpatterns = [
    path("device-models", views.DeviceModelsView.as_view(), name="device-models"),
    path(
        "device-models/<uuid:model_id>",
        views.DeviceModelView.as_view(),
        name="device-model",
    ),
    path("firmware", views.FirmwareListView.as_view(), name="firmware-list"),
    path("firmware/<uuid:firmware_id>", views.FirmwareView.as_view(), name="firmware"),
    path(
        "firmware/<uuid:firmware_id>/approve",
        views.ApproveView.as_view(),
        name="firmware-approve",
    ),
    path(
        "firmware/<uuid:firmware_id>/reject",
        views.RejectView.as_view(),
        name="firmware-reject",
    ),
    path(
        "firmware/<uuid:firmware_id>/deprecate",
        views.DeprecateView.as_view(),
        name="firmware-deprecate",
    ),
    path(
        "firmware/<uuid:firmware_id>/reinstate",
        views.ReinstateView.as_view(),
        name="firmware-reinstate",
    ),
    path(
        "firmware/<uuid:firmware_id>/verify",
        views.VerifyView.as_view(),
        name="firmware-verify",
    ),
    path(
        "firmware/<uuid:firmware_id>/usage",
        views.FirmwareUseView.as_view(),
        name="firmware-usage",
    ),
    path(
        "firmware/<uuid:firmware_id>/history",
        views.FirmwareHistoryView.as_view(),
        name="firmware-history",
    ),
    path(
        "firmware/<uuid:firmware_id>/evidence",
        views.FirmwareEvidenceView.as_view(),
        name="firmware-evidence",
    ),
    path(
        "firmware/<uuid:firmware_id>/sbom",
        sboms.SbomView.as_view(),
        name="firmware-sbom",
    ),
    path("signing-keys", views.SigningKeysView.as_view(), name="signing-keys"),
]
