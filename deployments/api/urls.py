"""Routes of the deployments app, below `/api/v1`."""

from django.urls import path

from deployments.api import notifications, views

ONE = "deployments/<uuid:deployment_id>"

urlpatterns = [
    path("deployments", views.DeploymentsView.as_view(), name="deployments"),
    path("deployments/preview", views.PreviewView.as_view(), name="deployment-preview"),
    path(ONE, views.DeploymentView.as_view(), name="deployment"),
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
    *(
        path(
            f"{ONE}/{read}",
            views.InsightView.as_view(read=read),
            name=f"deployment-{read}",
        )
        for read in views.InsightView.reads
    ),
    *(
        path(
            f"{ONE}/{verb}",
            views.OperateView.as_view(verb=verb),
            name=f"deployment-{verb}",
        )
        for verb in views.OperateView.verbs
    ),
    path(f"{ONE}/copy", views.CopyView.as_view(), name="deployment-copy"),
    path(
        f"{ONE}/approve-stage",
        views.ApproveStageView.as_view(),
        name="deployment-approve-stage",
    ),
    path("webhooks", notifications.WebhooksView.as_view(), name="webhooks"),
    path(
        "webhooks/<uuid:webhook_id>",
        notifications.WebhookView.as_view(),
        name="webhook",
    ),
    path(
        "webhooks/<uuid:webhook_id>/deliveries",
        notifications.WebhookDeliveriesView.as_view(),
        name="webhook-deliveries",
    ),
    path(
        "webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/resend",
        notifications.ResendView.as_view(),
        name="webhook-resend",
    ),
    path(
        "mail-recipients",
        notifications.MailRecipientsView.as_view(),
        name="mail-recipients",
    ),
    path(
        "mail-recipients/<uuid:recipient_id>",
        notifications.MailRecipientView.as_view(),
        name="mail-recipient",
    ),
    path(
        "mail-recipients/<uuid:recipient_id>/deliveries",
        notifications.MailDeliveriesView.as_view(),
        name="mail-deliveries",
    ),
    path("quarantines", views.QuarantinesView.as_view(), name="quarantines"),
    path(
        "devices/<str:device_id>/quarantines/<uuid:firmware_id>/release",
        views.ReleaseQuarantineView.as_view(),
        name="quarantine-release",
    ),
    path(
        "devices/<str:device_id>/update",
        views.DeviceUpdateView.as_view(),
        name="device-update",
    ),
    path(
        "devices/<str:device_id>/updates/<uuid:update_id>/reports",
        views.UpdateReportsView.as_view(),
        name="update-reports",
    ),
    path(
        "firmware/<uuid:firmware_id>/download",
        views.DownloadView.as_view(),
        name="firmware-download",
    ),
]
