"""Registers the models of deployments with their pages in the console."""

from django.contrib import admin

from deployments.console.pages.delivery import DeliveryAdmin
from deployments.console.pages.deployment import DeploymentAdmin
from deployments.console.pages.listener import (
    GatewayAdmin,
    MailRecipientAdmin,
    WebhookAdmin,
)
from deployments.console.pages.quarantine import QuarantineAdmin
from deployments.console.pages.rollback import RollbackAdmin
from deployments.models import (
    Delivery,
    Deployment,
    Gateway,
    MailRecipient,
    Quarantine,
    Rollback,
    Webhook,
)

admin.site.register(Quarantine, QuarantineAdmin)
admin.site.register(Rollback, RollbackAdmin)
admin.site.register(Deployment, DeploymentAdmin)
admin.site.register(Webhook, WebhookAdmin)
admin.site.register(MailRecipient, MailRecipientAdmin)
admin.site.register(Gateway, GatewayAdmin)
admin.site.register(Delivery, DeliveryAdmin)
