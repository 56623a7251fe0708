"""The latest state of each device, one narrow row, and the history of heartbeats.

Rules:
- The history is partitioned by day and dropped by age (`services/history.py`).
- No index covers what a usual heartbeat changes, so that updates stay in place.
- What is usual for a device is learned from the healthy reports that come while nobody
  watches it; an update that is under way, and the watch after it, teach nothing.
- A watch belongs to one order, named by an opaque id; its limits and all that is
  counted against them live on the row.
"""

from collections.abc import Mapping
from datetime import datetime

from django.contrib.postgres.indexes import BrinIndex
from django.db import models

from devices.models import Device
from health.baseline import RunningStatistics
from health.choices import HealthEvent, SecureBoot, Verdict
from health.triggers import BREACHES, TRIGGERS, Trigger

# What the agent reports where it cannot tell what runs.
UNKNOWN_CHECKSUM = "0" * 64


class DeviceState(models.Model):
    """What a device last said, and how it fares against the limits of its watch."""

    device = models.OneToOneField(
        Device, on_delete=models.CASCADE, primary_key=True, related_name="state"
    )
    last_seen_at = models.DateTimeField()
    online_until = models.DateTimeField()
    last_heartbeat_at = models.DateTimeField(null=True)
    refused_count = models.PositiveIntegerField(
        default=0, help_text="heartbeats refused since the last that was taken"
    )
    refused_at = models.DateTimeField(null=True)
    refused_reason = models.CharField(max_length=200, blank=True)
    last_unreadable_at = models.DateTimeField(
        null=True, help_text="when it was last heard without telling how it is"
    )
    interval_seconds = models.PositiveSmallIntegerField(default=60)
    last_poll_at = models.DateTimeField(
        null=True, help_text="empty: it has never asked for work"
    )
    poll_interval_seconds = models.PositiveIntegerField(
        default=60, help_text="after which it was told to ask again"
    )

    announced_offline_at = models.DateTimeField(
        null=True, help_text="empty: as far as was announced, it is online"
    )
    announced_unhealthy_at = models.DateTimeField(
        null=True, help_text="empty: as far as was announced, nothing is wrong with it"
    )

    boot_id = models.CharField(max_length=64, blank=True)
    boot_started_at = models.DateTimeField(
        null=True, help_text="by its arrivals and uptimes"
    )
    boot_count = models.PositiveIntegerField(
        default=0, help_text="boots that were recognised, by their ids or uptimes"
    )
    heartbeat_sequence = models.BigIntegerField(null=True)
    past_boots = models.JSONField(
        default=list, help_text="the last of them: id, start, last heartbeat"
    )
    held_back = models.JSONField(
        null=True, help_text="a boot that is heard beside the present one"
    )
    duplicate_since = models.DateTimeField(
        null=True, help_text="when two boards were found to have its identity"
    )
    duplicate_at = models.DateTimeField(
        null=True, help_text="when that was last seen to be so"
    )
    uptime_seconds = models.BigIntegerField(null=True)
    cpu_percent = models.FloatField(null=True)
    memory_percent = models.FloatField(null=True)
    error_ratio = models.FloatField(null=True)
    application_metrics = models.JSONField(default=dict)
    secure_boot = models.CharField(
        max_length=8, choices=SecureBoot.choices, default=SecureBoot.UNKNOWN
    )
    firmware_version = models.CharField(max_length=64, blank=True)
    firmware_checksum = models.CharField(max_length=64, blank=True)
    other_slot_checksum = models.CharField(
        max_length=64,
        null=True,
        help_text="of the image that it keeps beside the running one and can go back "
        "to by itself; empty: none; null: its agent cannot",
    )
    image_since = models.DateTimeField(null=True)
    verdict = models.CharField(
        max_length=9, choices=Verdict.choices, default=Verdict.UNKNOWN
    )
    verdict_reason = models.CharField(max_length=200, blank=True)

    watch_id = models.UUIDField(null=True)
    watch_checksum = models.CharField(
        max_length=64, blank=True, help_text="only this image is judged by the watch"
    )
    watch_until = models.DateTimeField(null=True)
    watch_interval_seconds = models.PositiveSmallIntegerField(default=30)
    limits = models.JSONField(null=True)
    offline_after_seconds = models.PositiveIntegerField(null=True)
    silence_counts_from = models.DateTimeField(
        null=True, help_text="offline is judged from here; empty: not yet"
    )
    attentive_until = models.DateTimeField(
        null=True, help_text="heartbeats every minute until then"
    )
    healthy_since = models.DateTimeField(null=True)
    healthy_at = models.DateTimeField(
        null=True, help_text="the last of the healthy heartbeats since then"
    )
    healthy_count = models.PositiveIntegerField(default=0)
    cpu_since = models.DateTimeField(null=True)
    memory_since = models.DateTimeField(null=True)
    error_since = models.DateTimeField(null=True)
    breach = models.CharField(max_length=10, choices=BREACHES, blank=True)
    breach_detail = models.CharField(max_length=200, blank=True)
    breach_at = models.DateTimeField(null=True)
    anomaly = models.CharField(
        max_length=200,
        blank=True,
        help_text="the first of the watch: what was far from usual, and how sure it is",
    )
    announced_anomaly_at = models.DateTimeField(null=True)
    left_image_at = models.DateTimeField(
        null=True, help_text="when it ceased to run the image that is watched"
    )

    baseline_since = models.DateTimeField(
        null=True, help_text="when the first report of the baseline came"
    )
    baseline_samples = models.PositiveIntegerField(default=0)
    baseline_cpu_mean = models.FloatField(default=0)
    baseline_cpu_variance = models.FloatField(default=0)
    baseline_memory_mean = models.FloatField(default=0)
    baseline_memory_variance = models.FloatField(default=0)
    # A device need not report its error rate, so it is counted apart.
    baseline_error_samples = models.PositiveIntegerField(default=0)
    baseline_error_mean = models.FloatField(default=0)
    baseline_error_variance = models.FloatField(default=0)

    class Meta:
        indexes = [
            models.Index(
                fields=["watch_id"],
                name="state_watched",
                condition=models.Q(watch_id__isnull=False),
            ),
            # The few with bad news among 100,000 that are watched.
            models.Index(
                fields=["watch_id"],
                name="state_breached",
                condition=models.Q(watch_id__isnull=False) & ~models.Q(breach=""),
            ),
            # The few that a person looks for; a usual heartbeat changes no verdict.
            models.Index(
                fields=["verdict"],
                name="state_unwell",
                condition=models.Q(verdict__in=[Verdict.DEGRADED, Verdict.UNHEALTHY]),
            ),
            models.Index(
                fields=["watch_id"],
                name="state_left_image",
                condition=models.Q(watch_id__isnull=False, left_image_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"state of {self.device_id}"

    @property
    def can_return_to_slot(self) -> bool:
        """Its agent keeps what runs when it installs, and goes back to it if told."""
        return self.other_slot_checksum is not None and (
            self.firmware_checksum not in ("", UNKNOWN_CHECKSUM)
        )

    @property
    def timers(self) -> dict[str, datetime]:
        """Since when each limit has been exceeded, by the names of the triggers."""
        found = ((each.name, getattr(self, each.timer)) for each in TRIGGERS)
        return {name: since for name, since in found if since is not None}

    @timers.setter
    def timers(self, timers: Mapping[str, datetime]) -> None:
        for each in TRIGGERS:
            setattr(self, each.timer, timers.get(each.name))

    def measured(self, trigger: Trigger) -> float | None:
        """Return the latest value of a measure, None where it is not known."""
        value: float | None = getattr(self, trigger.column)
        return value

    def usual(self, trigger: Trigger) -> RunningStatistics:
        """Return what is usual for the device, in the unit of the measure."""
        return RunningStatistics(
            getattr(self, trigger.baseline_samples),
            getattr(self, trigger.mean),
            getattr(self, trigger.variance),
            trigger.prior_spread,
        )

    def learn(self, trigger: Trigger, usual: RunningStatistics) -> None:
        """Put what is usual for the device into its columns."""
        setattr(self, trigger.baseline_samples, usual.samples)
        setattr(self, trigger.mean, usual.mean)
        setattr(self, trigger.variance, usual.variance)


class DeviceEvent(models.Model):
    """One line of a device's own log, kept as long as the history of heartbeats."""

    # Written for devices whose rows were just read, 100,000 at once; erasure leaves the
    # row of a device.
    device = models.ForeignKey(
        Device,
        on_delete=models.CASCADE,
        related_name="health_events",
        db_index=False,
        db_constraint=False,
    )
    at = models.DateTimeField()
    level = models.CharField(max_length=7)
    event = models.CharField(max_length=40, choices=HealthEvent.choices)
    message = models.CharField(max_length=200)

    class Meta:
        indexes = [
            models.Index(fields=["device", "-id"], name="device_event_newest"),
            BrinIndex(fields=["at"], name="device_event_age"),
        ]

    def __str__(self) -> str:
        return f"{self.event} of {self.device_id}"


class Reading(models.Model):
    """One heartbeat of the past, in a table that is partitioned by day.

    What the device did not say, or not readably, is empty.

    Nothing refers to it and it refers to nothing in the database, so that writing one
    more costs one insert; the erasure of a device takes its readings along.
    """

    pk = models.CompositePrimaryKey("device_id", "at")
    device_id = models.UUIDField()
    at = models.DateTimeField()
    cpu_percent = models.FloatField(null=True)
    memory_percent = models.FloatField(null=True)
    error_ratio = models.FloatField(null=True)
    uptime_seconds = models.BigIntegerField(null=True)
    firmware_version = models.CharField(max_length=64)
    is_first_of_boot = models.BooleanField()
    application_metrics = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.device_id} at {self.at:%Y-%m-%d %H:%M:%S}"
