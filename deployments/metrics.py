"""What is counted of deployments and of the updates of devices.

Each is written where its event is: `transitions`, `launch`, `rollbacks`, the sweeps and
the reports. docs/operate/observability.md says of each which rows it equals.
"""

from typing import Final

from django.conf import settings

from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    DeploymentStatus,
    RollbackTrigger,
    Strategy,
)
from deployments.models import Deployment
from hotswap.common.metrics import Counter, Gauge, Histogram
from hotswap.common.models import MetricCount

STRATEGY: Final = {"strategy": tuple(Strategy.values)}
DEVICE: Final = {**STRATEGY, "region": (), "model": ()}
IMAGE: Final = {"region": (), "model": ()}
ACTIVE: Final = tuple(status.value for status in ACTIVE_DEPLOYMENTS)
# What a device finds wrong with an image before it installs it.
VERIFICATION_CODES: Final = (
    *("checksum_mismatch", "manifest_refused", "signature_invalid"),
    *("size_mismatch", "unknown_key"),
)
# Longer than any step may take: what a device says beyond is not believed.
MAX_SECONDS: Final = 10**9

DEPLOYMENTS_CREATED = Counter(
    "hotswap_deployments_created_total",
    "deployments.created.total",
    "Deployments created",
    STRATEGY,
)
DEPLOYMENTS_COMPLETED = Counter(
    "hotswap_deployments_completed_total",
    "deployments.completed.total",
    "Times that a deployment was completed",
    STRATEGY,
)
DEPLOYMENTS_FAILED = Counter(
    "hotswap_deployments_failed_total",
    "deployments.failed.total",
    "Deployments failed",
    STRATEGY,
)
DEPLOYMENTS_ROLLED_BACK = Counter(
    "hotswap_deployments_rolled_back_total",
    "",
    "Deployments of which every exposed device proved its former image",
    STRATEGY,
)
DEPLOYMENTS_CANCELLED = Counter(
    "hotswap_deployments_cancelled_total", "", "Deployments cancelled", STRATEGY
)
DEVICES_UPDATED = Counter(
    "hotswap_devices_updated_total",
    "devices.updated.total",
    "Devices that proved their update",
    DEVICE,
)
DEVICES_FAILED = Counter(
    "hotswap_devices_failed_total",
    "devices.failed.total",
    "Devices whose update failed for good, after their attempts",
    DEVICE,
)
DEVICE_RETURNS = Counter(
    "hotswap_device_returns_total",
    "",
    "Returns of devices to their former image, proved or given up",
    {**DEVICE, "outcome": ("returned", "failed")},
)
ROLLBACKS_TRIGGERED = Counter(
    "hotswap_rollbacks_triggered_total",
    "rollbacks.triggered.total",
    "Rollbacks of deployments or parts of them, by whether a gate or an operator "
    "decided",
    {**STRATEGY, "trigger": tuple(RollbackTrigger.values)},
)
FIRMWARE_DOWNLOADS = Counter(
    "hotswap_firmware_downloads_total",
    "firmware.downloads.total",
    "Orders whose image the device has fetched whole",
    IMAGE,
)
VERIFICATIONS_FAILED = Counter(
    "hotswap_firmware_verifications_failed_total",
    "firmware.verifications.failed.total",
    "Orders that failed because the device found image or manifest wrong",
    {**IMAGE, "outcome": VERIFICATION_CODES},
)

DEPLOYMENT_DURATION = Histogram(
    "hotswap_deployment_duration_seconds",
    "deployment.duration",
    "From the start of a deployment to its end",
    {**STRATEGY, "outcome": ("Completed", "RolledBack", "Failed", "Cancelled")},
    (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800),
)
STEP_BOUNDS: Final = (5, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600)
DOWNLOAD_DURATION = Histogram(
    "hotswap_firmware_download_duration_seconds",
    "firmware.download.duration",
    "Download of the image, as proved devices say",
    IMAGE,
    STEP_BOUNDS,
)
INSTALL_DURATION = Histogram(
    "hotswap_firmware_install_duration_seconds",
    "firmware.install.duration",
    "Installation of the image, as proved devices say",
    IMAGE,
    STEP_BOUNDS,
)
DEVICE_UPDATE_DURATION = Histogram(
    "hotswap_device_update_duration_seconds",
    "device.update.duration",
    "From the offer of an update to its proof",
    {**STRATEGY, **IMAGE},
    (30, *STEP_BOUNDS[3:], 7200, 86400),
)

DEPLOYMENTS_ACTIVE = Gauge(
    "hotswap_deployments_active",
    "deployments.active",
    "Deployments that are not over",
    {"strategy": tuple(Strategy.values), "status": ACTIVE},
    f"""
    SELECT strategy, status, count(*) FROM deployments_deployment
    WHERE status IN ({", ".join(f"'{each}'" for each in ACTIVE)})
    GROUP BY 1, 2
    """,  # noqa: S608
)
DEPLOYMENTS_PAUSED = Gauge(
    "hotswap_deployments_paused",
    "",
    "Paused deployments, by the reason",
    {"reason": ("operator", "health", "window", "approval")},
    """
    SELECT reason, count(*)
    FROM deployments_deployment, unnest(pause_reasons) AS reason
    WHERE status = 'Paused' GROUP BY 1
    """,
)
OUTBOX_AGE = Gauge(
    "hotswap_outbox_oldest_seconds",
    "",
    "How long the oldest notification that is due has waited",
    {},
    """
    SELECT COALESCE(extract(epoch FROM now() - min(next_attempt_at)), 0)::float8
    FROM deployments_delivery WHERE status = 'pending' AND next_attempt_at <= now()
    """,
)
OUTBOX_PENDING = Gauge(
    "hotswap_outbox_pending",
    "",
    "Notifications that have not been delivered yet",
    {},
    "SELECT count(*) FROM deployments_delivery WHERE status = 'pending'",
)

COUNTERS: Final = (
    *(DEPLOYMENTS_CREATED, DEPLOYMENTS_COMPLETED, DEPLOYMENTS_FAILED),
    *(DEPLOYMENTS_ROLLED_BACK, DEPLOYMENTS_CANCELLED),
    *(DEVICES_UPDATED, DEVICES_FAILED, DEVICE_RETURNS, ROLLBACKS_TRIGGERED),
    *(FIRMWARE_DOWNLOADS, VERIFICATIONS_FAILED),
)
HISTOGRAMS: Final = (
    *(DEPLOYMENT_DURATION, DOWNLOAD_DURATION, INSTALL_DURATION),
    DEVICE_UPDATE_DURATION,
)
GAUGES: Final = (DEPLOYMENTS_ACTIVE, DEPLOYMENTS_PAUSED, OUTBOX_AGE, OUTBOX_PENDING)
ENDED: Final = {
    DeploymentStatus.COMPLETED: DEPLOYMENTS_COMPLETED,
    DeploymentStatus.FAILED: DEPLOYMENTS_FAILED,
    DeploymentStatus.ROLLED_BACK: DEPLOYMENTS_ROLLED_BACK,
    DeploymentStatus.CANCELLED: DEPLOYMENTS_CANCELLED,
}


def labelled(rows: str, *, where: str = "true") -> str:
    """Return SQL that puts the labels of their devices to rows, for a WITH clause.

    Args:
        rows: a name in the clause, with `deployment_id` and `device_id`.
        where: SQL over `each`, of which rows.
    """
    return f"""
        SELECT each.*, p.strategy, d.region, m.name AS model
        FROM {rows} each
        JOIN deployments_deployment p ON p.id = each.deployment_id
        JOIN devices_device d ON d.id = each.device_id
        JOIN firmware_devicemodel m ON m.id = d.model_id
        WHERE {where}
    """  # noqa: S608


def reported_duration(name: str) -> str:
    """Return SQL for what a device says of how long a step took, over `durations`."""
    value = f"(durations->>'{name}')::numeric"
    return f"CASE WHEN {value} BETWEEN 0 AND {MAX_SECONDS} THEN {value} END"


def at_zero(deployment: Deployment) -> list[MetricCount]:
    """Return rows of no event, for the counters of devices that a deployment may move.

    A number that appears out of nothing has not risen, to Prometheus: the first failure
    would not be seen.
    """
    found = []
    for region in settings.REGIONS:
        of_image = {"region": region, "model": deployment.firmware.model.name}
        labels = {"strategy": deployment.strategy, **of_image}
        found += [
            DEVICES_UPDATED.entry(0, **labels),
            DEVICES_FAILED.entry(0, **labels),
            *(
                DEVICE_RETURNS.entry(0, outcome=outcome, **labels)
                for outcome in DEVICE_RETURNS.labels["outcome"]
            ),
            FIRMWARE_DOWNLOADS.entry(0, **of_image),
            *(
                VERIFICATIONS_FAILED.entry(0, outcome=code, **of_image)
                for code in VERIFICATION_CODES
            ),
        ]
    return found
