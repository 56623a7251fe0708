"""Chainable filters over deployments."""

from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.db import models

from deployments.choices import ACTIVE_DEPLOYMENTS, DeliveryStatus, DeploymentStatus

if TYPE_CHECKING:
    from deployments.models import Delivery, Deployment, Quarantine, Receiver
else:
    Delivery = Deployment = Receiver = Quarantine = models.Model


class DeploymentQuerySet(models.QuerySet["Deployment"]):
    def active(self) -> Self:
        """Those that a tick still moves."""
        return self.filter(status__in=ACTIVE_DEPLOYMENTS)

    def moved_by_ticks(self) -> Self:
        """Those that are active, and those whose devices are watched after the end."""
        return self.filter(
            models.Q(status__in=ACTIVE_DEPLOYMENTS)
            | models.Q(watching_until__isnull=False)
        )

    def waiting(self) -> Self:
        """Those whose time has yet to come, first ones first; nobody is a target yet.

        One that was paused while it waited goes on waiting when it is resumed.
        """
        paused = models.Q(
            status=DeploymentStatus.PAUSED,
            started_at__isnull=True,
            cancel_requested_at__isnull=True,
        )
        return (
            self.select_related("firmware")
            .filter(models.Q(status=DeploymentStatus.SCHEDULED) | paused)
            .order_by("scheduled_at", "pk")
        )


class QuarantineQuerySet(models.QuerySet["Quarantine"]):
    def active(self) -> Self:
        """Those that keep an image from its device now."""
        return self.filter(quarantined_at__isnull=False)


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def of(self, receiver: Receiver) -> Self:
        """Those to one receiver."""
        return self.filter(**{receiver.delivery_field: receiver.pk})

    def with_receiver(self) -> Self:
        """With what is delivered, and to whom."""
        keys = self.model._meta.get_fields()
        names = (each.name for each in keys if isinstance(each, models.ForeignKey))
        return self.select_related(*names)

    def due(self, now: datetime) -> Self:
        """Those whose next attempt has come, or whose lease has run out."""
        return self.filter(status=DeliveryStatus.PENDING, next_attempt_at__lte=now)
