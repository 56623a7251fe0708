"""Registers the models of deployments with their pages in the console, and panels."""

from django.contrib import admin

from deployments.console.pages.delivery import DeliveryAdmin
from deployments.console.pages.deployment import DeploymentAdmin
from deployments.console.pages.quarantine import QuarantineAdmin
from deployments.console.pages.receiver import receiver_admin
from deployments.console.pages.rollback import RollbackAdmin
from deployments.console.panels import register_panels
from deployments.models import Delivery, Deployment, Quarantine, Rollback
from deployments.notifications.channels.registry import CHANNELS

admin.site.register(Quarantine, QuarantineAdmin)
admin.site.register(Rollback, RollbackAdmin)
admin.site.register(Deployment, DeploymentAdmin)
for channel in CHANNELS:
    admin.site.register(channel.model, receiver_admin(channel))
admin.site.register(Delivery, DeliveryAdmin)
register_panels()
