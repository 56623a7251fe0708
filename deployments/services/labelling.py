"""What people call a deployment, and whether lists show it; it changes nothing else."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deployments.exceptions import WrongStatusError
from deployments.models import Deployment
from deployments.rules.events import EventName
from deployments.services.locked import locked_deployment
from deployments.services.log import log
from hotswap.common import audit
from hotswap.common.etags import check_match
from hotswap.common.models import User

MAX_TAGS = 16


def label_deployment(
    *,
    actor: User,
    deployment_id: UUID,
    name: str | None = None,
    tags: Sequence[str] | None = None,
    is_archived: bool | None = None,
    expected: frozenset[str] | None = None,
    now: datetime | None = None,
) -> Deployment:
    """Rename a deployment, tag it, or put it into the archive or out of it.

    What is None stays as it is. Of tags that are given twice one is kept.

    Args:
        tags: all that it has from then on, 16 at most, of 1 to 32 characters each.
        expected: ETags of which its own must be one; None when any will do.

    Raises:
        DeploymentNotFoundError: there is none.
        WrongStatusError: it is to be archived and has not ended, or is watched (409).
        PreconditionFailedError: it has changed since the caller read it (412).
    """
    now = now or timezone.now()
    with transaction.atomic():
        deployment = locked_deployment(deployment_id)
        check_match(deployment, expected)
        if is_archived and not deployment.may_be_archived:
            raise WrongStatusError(
                f"a deployment that is {deployment.status} and moves or watches "
                "devices cannot be archived"
            )
        before = deployment.name, deployment.tags, deployment.archived_at
        if name is not None:
            deployment.name = name
        if tags is not None:
            deployment.tags = sorted(set(tags))
        if is_archived is not None:
            since = deployment.archived_at or now
            deployment.archived_at = since if is_archived else None
        if (deployment.name, deployment.tags, deployment.archived_at) != before:
            deployment.updated_at = now
            audit.record(
                actor=actor,
                verb="deployment.labelled",
                object_kind="deployment",
                object_id=deployment.pk,
                changed=deployment,
            )
            if deployment.name != before[0]:
                words = f"changed: name {before[0]} -> {deployment.name}"
                log(deployment, EventName.EDITED, words, now=now)
            deployment.save(update_fields=["name", "tags", "archived_at", "updated_at"])
    return deployment
