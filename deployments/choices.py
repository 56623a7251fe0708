"""Words of deployments, and the moves between them.

The tables of moves are enforced twice: by the services under the row's lock, and by
triggers in the database, which see every write.
"""

from django.db import models


class Strategy(models.TextChoices):
    DIRECT = "Direct"
    REGIONAL = "Regional"
    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen", "Blue-green"
    ROLLING = "Rolling"


class LiveFleet(models.TextChoices):
    """Which half of a blue-green deployment serves."""

    BLUE = "blue"
    GREEN = "green"


class DeploymentStatus(models.TextChoices):
    SCHEDULED = "Scheduled"
    PREPARING = "Preparing"
    RUNNING = "Running"
    PAUSED = "Paused"
    COMPLETED = "Completed"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


D = DeploymentStatus
# Those that a tick still moves.
ACTIVE_DEPLOYMENTS = (D.SCHEDULED, D.PREPARING, D.RUNNING, D.PAUSED, D.ROLLING_BACK)
PAUSABLE = (D.SCHEDULED, D.PREPARING, D.RUNNING)
CANCELLABLE = (D.SCHEDULED, D.PREPARING, D.RUNNING, D.PAUSED)
REVERSIBLE = (D.RUNNING, D.PAUSED, D.COMPLETED)
# Those in which a fleet may be held.
HOLDABLE = (D.RUNNING, D.PAUSED, D.ROLLING_BACK)
RETRIABLE = (D.RUNNING, D.PAUSED, D.COMPLETED)

DEPLOYMENT_MOVES = (
    (D.SCHEDULED, D.PREPARING),
    (D.SCHEDULED, D.PAUSED),
    (D.SCHEDULED, D.CANCELLED),
    (D.SCHEDULED, D.FAILED),
    (D.PREPARING, D.RUNNING),
    (D.PREPARING, D.PAUSED),
    (D.PREPARING, D.CANCELLED),
    (D.PREPARING, D.FAILED),
    (D.RUNNING, D.PAUSED),
    (D.RUNNING, D.COMPLETED),
    (D.RUNNING, D.ROLLING_BACK),
    (D.RUNNING, D.CANCELLED),
    (D.RUNNING, D.FAILED),
    (D.PAUSED, D.SCHEDULED),
    (D.PAUSED, D.RUNNING),
    (D.PAUSED, D.ROLLING_BACK),
    (D.PAUSED, D.CANCELLED),
    (D.COMPLETED, D.ROLLING_BACK),
    # What failed is tried again.
    (D.COMPLETED, D.RUNNING),
    (D.ROLLING_BACK, D.ROLLED_BACK),
    (D.ROLLING_BACK, D.FAILED),
)


class PauseReason(models.TextChoices):
    OPERATOR = "operator"
    HEALTH = "health"
    WINDOW = "window"
    APPROVAL = "approval"


class RollbackTrigger(models.TextChoices):
    """What sent a whole deployment back: a person, or the gate of a stage."""

    OPERATOR = "operator"
    GATE = "gate"


class StageStatus(models.TextChoices):
    PENDING = "pending"
    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"


class TargetStatus(models.TextChoices):
    PENDING = "pending"
    NOTIFIED = "notified"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    SUCCESS = "success"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


T = TargetStatus
# What a device says before its claim, in their usual order.
WORKING = (T.DOWNLOADING, T.VERIFYING, T.INSTALLING, T.REBOOTING)
IN_FLIGHT = (T.NOTIFIED, *WORKING, T.CONFIRMING)
# A device here has not begun to change anything: it can still be stopped.
STOPPABLE = (T.NOTIFIED, T.DOWNLOADING, T.VERIFYING)
UNFINISHED = (T.PENDING, *IN_FLIGHT, T.ROLLING_BACK)

TARGET_MOVES = (
    (T.PENDING, T.NOTIFIED),
    (T.PENDING, T.SKIPPED),
    (T.PENDING, T.CANCELLED),
    (T.PENDING, T.ROLLING_BACK),
    (T.PENDING, T.FAILED),
    *((a, b) for a in IN_FLIGHT for b in (*WORKING, T.CONFIRMING) if a != b),
    *((a, T.PENDING) for a in IN_FLIGHT),
    *((a, T.FAILED) for a in IN_FLIGHT),
    *((a, T.ROLLING_BACK) for a in IN_FLIGHT),
    *((a, T.CANCELLED) for a in STOPPABLE),
    # Its device was erased.
    *((a, T.CANCELLED) for a in IN_FLIGHT if a not in STOPPABLE),
    (T.ROLLING_BACK, T.CANCELLED),
    (T.CONFIRMING, T.SUCCESS),
    (T.SUCCESS, T.FAILED),
    (T.SUCCESS, T.ROLLING_BACK),
    (T.FAILED, T.ROLLING_BACK),
    (T.ROLLING_BACK, T.ROLLED_BACK),
    (T.ROLLING_BACK, T.FAILED),
    # A return that was given up may be proved after all.
    (T.FAILED, T.ROLLED_BACK),
    # The device was updated since, by a later deployment or by other means.
    (T.SUCCESS, T.SKIPPED),
    (T.ROLLING_BACK, T.SKIPPED),
    # An operator has them tried again.
    (T.FAILED, T.PENDING),
    (T.ROLLED_BACK, T.PENDING),
)


class OrderKind(models.TextChoices):
    INSTALL = "install"
    ROLLBACK = "rollback"


class UpdateStatus(models.TextChoices):
    """How far one order has come; the last four close it."""

    NOTIFIED = "notified"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class ReportStatus(models.TextChoices):
    """The words a device may say."""

    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    FAILED = "failed"


class Level(models.TextChoices):
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class OnWarning(models.TextChoices):
    PROCEED = "proceed"
    PAUSE = "pause"


class OnLateBreach(models.TextChoices):
    """What goes back when a stage falls below its threshold after the end."""

    DEPLOYMENT = "deployment"
    DEVICE = "device"


class AcknowledgedWarning(models.TextChoices):
    """Warnings that a launch has to name, so that nobody overlooks them."""

    PREVIOUSLY_ROLLED_BACK = "previously_rolled_back", "it has gone wrong before"
    DOWNGRADE = "downgrade", "devices go down to a lower version"
    SECURITY_VERSION_RAISED = "security_version_raised", "a security version rises"
    NO_PREVIOUS_IMAGE = "no_previous_image", "devices have no way back"
    WHOLE_FLEET = "whole_fleet", "all devices of the model get it"
    MANY_AT_ONCE = "many_at_once", "many devices get it at once"


class OfflineDevices(models.TextChoices):
    WAIT = "wait"
    EXCLUDE = "exclude"
    REJECT = "reject"


class BusyDevices(models.TextChoices):
    WAIT = "wait"
    EXCLUDE = "exclude"
    REJECT = "reject"


class DeliveryStatus(models.TextChoices):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
