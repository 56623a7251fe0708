"""A deployment under its lock."""

from uuid import UUID

from deployments.exceptions import DeploymentNotFoundError
from deployments.models import Deployment
from hotswap.common.early_ticks import ask_for_tick_on_commit


def locked_deployment(deployment_id: UUID) -> Deployment:
    """Return a deployment, with its firmware and model, under its lock.

    Call it in a transaction, which ends the lock. Its status is to be checked
    afterwards: whoever had the lock before may have changed it. A tick looks at what
    has been changed at once.

    Raises:
        DeploymentNotFoundError: there is none.
    """
    deployment = (
        Deployment.objects.select_for_update(of=("self",), no_key=True)
        .select_related("firmware__model")
        .filter(pk=deployment_id)
        .first()
    )
    if deployment is None:
        raise DeploymentNotFoundError("there is no such deployment")
    ask_for_tick_on_commit()
    return deployment
