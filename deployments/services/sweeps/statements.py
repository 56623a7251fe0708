"""How the statements of the sweeps are run."""

from collections.abc import Sequence
from typing import Any

from deployments.models import Deployment
from hotswap.common.rows import prepared_cursor


def identity(deployment: Deployment) -> dict[str, Any]:
    """Return what `HAS_MOVED_ON` asks for."""
    return {
        "deployment": deployment.pk,
        "created": deployment.created_at,
        "firmware": deployment.firmware_id,
        "sha256": deployment.firmware.sha256,
        "model": deployment.firmware.model_id,
        "precedence": deployment.firmware.precedence,
    }


def row(statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
    with prepared_cursor() as cursor:
        cursor.execute(statement, parameters)
        row: Sequence[Any] = cursor.fetchone()
    return row


def run(statement: str, parameters: dict[str, Any]) -> int:
    return int(row(statement, parameters)[0])
