"""Routes of the deployments app, below `/api/v1`."""

from django.urls import URLPattern, path

from deployments.api import notifications, rollbacks, views
from deployments.notifications.channels.registry import CHANNELS
from deployments.notifications.channels.types import Channel
from deployments.protocols.native import views as native

ONE = "deployments/<uuid:deployment_id>"


def _routes_of(channel: Channel) -> list[URLPattern]:
    """Return the routes of the receivers of a channel."""
    place, kind = channel.route, channel.model
    one = f"{place}/<uuid:receiver_id>"
    secret = [
        path(
            f"{one}/rotate-secret",
            notifications.RotateSecretView.as_view(),
            name=f"{kind.kind}-rotate-secret",
        )
    ]
    return [
        path(place, notifications.list_view(channel).as_view(), name=place),
        path(one, notifications.single_view(channel).as_view(), name=kind.kind),
        path(
            f"{one}/test",
            notifications.SendTestView.as_view(kind=kind),
            name=f"{kind.kind}-test",
        ),
        path(
            f"{one}/deliveries",
            notifications.DeliveriesView.as_view(kind=kind),
            name=f"{kind.kind}-deliveries",
        ),
        path(
            f"{one}/deliveries/<uuid:delivery_id>/resend",
            notifications.ResendView.as_view(kind=kind),
            name=f"{kind.kind}-resend",
        ),
        *(secret if channel.has_secret else []),
    ]


urlpatterns = [
    path(
        "firmware/<uuid:firmware_id>/exposure",
        views.FirmwareExposureView.as_view(),
        name="firmware-exposure",
    ),
    path("deployments", views.DeploymentsView.as_view(), name="deployments"),
    path("deployments/preview", views.PreviewView.as_view(), name="deployment-preview"),
    path(ONE, views.DeploymentView.as_view(), name="deployment"),
    path(
        f"{ONE}/evidence",
        views.DeploymentEvidenceView.as_view(),
        name="deployment-evidence",
    ),
    path(
        f"{ONE}/status", views.DeploymentStatusView.as_view(), name="deployment-status"
    ),
    path(
        f"{ONE}/devices",
        views.DeploymentDevicesView.as_view(),
        name="deployment-devices",
    ),
    path(
        f"{ONE}/devices/<str:device_id>",
        views.DeploymentDeviceView.as_view(),
        name="deployment-device",
    ),
    path(f"{ONE}/logs", views.DeploymentLogView.as_view(), name="deployment-logs"),
    path(f"{ONE}/metrics", views.MetricsView.as_view(), name="deployment-metrics"),
    path(
        f"{ONE}/health-report",
        views.HealthReportView.as_view(),
        name="deployment-health-report",
    ),
    path(
        f"{ONE}/rollbacks",
        views.DeploymentRollbacksView.as_view(),
        name="deployment-rollbacks",
    ),
    *(
        path(
            f"{ONE}/{verb}",
            views.OperateView.as_view(verb=verb),
            name=f"deployment-{verb}",
        )
        for verb in views.OperateView.verbs
    ),
    path(f"{ONE}/rollback", views.RollbackView.as_view(), name="deployment-rollback"),
    path(
        f"{ONE}/acknowledge-hold",
        views.AcknowledgeHoldView.as_view(),
        name="deployment-acknowledge-hold",
    ),
    path(f"{ONE}/fleets", views.FleetsView.as_view(), name="deployment-fleets"),
    path(f"{ONE}/copy", views.CopyView.as_view(), name="deployment-copy"),
    path(
        f"{ONE}/approve-stage",
        views.ApproveStageView.as_view(),
        name="deployment-approve-stage",
    ),
    *(route for channel in CHANNELS for route in _routes_of(channel)),
    path(
        "devices/<str:device_id>/deployments",
        views.DeviceDeploymentsView.as_view(),
        name="device-deployments",
    ),
    path("rollbacks", rollbacks.RollbacksView.as_view(), name="rollbacks"),
    path("quarantines", views.QuarantinesView.as_view(), name="quarantines"),
    path(
        "devices/<str:device_id>/quarantines/<uuid:firmware_id>/release",
        views.ReleaseQuarantineView.as_view(),
        name="quarantine-release",
    ),
    path(
        "devices/<str:device_id>/update",
        native.DeviceUpdateView.as_view(),
        name="device-update",
    ),
    path(
        "devices/<str:device_id>/updates/<uuid:update_id>/reports",
        native.UpdateReportsView.as_view(),
        name="update-reports",
    ),
    path(
        "firmware/<uuid:firmware_id>/download",
        native.DownloadView.as_view(),
        name="firmware-download",
    ),
]
