"""Chainable filters over deployments."""

from typing import TYPE_CHECKING, Self

from django.db import models

from deployments.choices import ACTIVE_DEPLOYMENTS

if TYPE_CHECKING:
    from deployments.models import Deployment
else:
    Deployment = models.Model


class DeploymentQuerySet(models.QuerySet["Deployment"]):
    def active(self) -> Self:
        """Those that a tick still moves."""
        return self.filter(status__in=ACTIVE_DEPLOYMENTS)
