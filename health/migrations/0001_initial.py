"""What devices report: state, history, refusals and events."""

from pathlib import Path

import django.contrib.postgres.indexes
import django.db.models.deletion
from django.db import migrations, models

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("devices", "0001_initial"),
    ]

    operations = [
        # Django's state knows an ordinary table, so that it is emptied with the others;
        # Django has no words for partitions.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    (SQL / "reading_partitions.sql").read_text(),
                    "DROP TABLE health_reading",
                ),
            ],
            state_operations=[
                migrations.CreateModel(
                    name="Reading",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "device_id",
                                "at",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("device_id", models.UUIDField()),
                        ("at", models.DateTimeField()),
                        ("cpu_percent", models.FloatField(null=True)),
                        ("memory_percent", models.FloatField(null=True)),
                        ("error_ratio", models.FloatField(null=True)),
                        ("uptime_seconds", models.BigIntegerField(null=True)),
                        ("firmware_version", models.CharField(max_length=64)),
                        ("is_first_of_boot", models.BooleanField()),
                        ("application_metrics", models.JSONField(null=True)),
                    ],
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeviceState",
            fields=[
                (
                    "device",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="state",
                        serialize=False,
                        to="devices.device",
                    ),
                ),
                ("last_seen_at", models.DateTimeField()),
                ("online_until", models.DateTimeField()),
                ("last_heartbeat_at", models.DateTimeField(null=True)),
                (
                    "refused_count",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="heartbeats refused since the last that was taken",
                    ),
                ),
                ("refused_at", models.DateTimeField(null=True)),
                ("refused_reason", models.CharField(blank=True, max_length=200)),
                (
                    "last_unreadable_at",
                    models.DateTimeField(
                        help_text="when it was last heard without telling how it is",
                        null=True,
                    ),
                ),
                ("interval_seconds", models.PositiveSmallIntegerField(default=60)),
                (
                    "last_poll_at",
                    models.DateTimeField(
                        help_text="empty: it has never asked for work", null=True
                    ),
                ),
                (
                    "poll_interval_seconds",
                    models.PositiveIntegerField(
                        default=60, help_text="after which it was told to ask again"
                    ),
                ),
                (
                    "announced_offline_at",
                    models.DateTimeField(
                        help_text="empty: as far as was announced, it is online",
                        null=True,
                    ),
                ),
                (
                    "announced_unhealthy_at",
                    models.DateTimeField(
                        help_text="empty: as far as was announced, nothing is wrong with it",
                        null=True,
                    ),
                ),
                ("boot_id", models.CharField(blank=True, max_length=64)),
                (
                    "boot_started_at",
                    models.DateTimeField(
                        help_text="by its arrivals and uptimes", null=True
                    ),
                ),
                (
                    "boot_count",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="boots that were recognised, by their ids or uptimes",
                    ),
                ),
                ("heartbeat_sequence", models.BigIntegerField(null=True)),
                (
                    "past_boots",
                    models.JSONField(
                        default=list,
                        help_text="the last of them: id, start, last heartbeat",
                    ),
                ),
                (
                    "held_back",
                    models.JSONField(
                        help_text="a boot that is heard beside the present one",
                        null=True,
                    ),
                ),
                (
                    "duplicate_since",
                    models.DateTimeField(
                        help_text="when two boards were found to have its identity",
                        null=True,
                    ),
                ),
                (
                    "duplicate_at",
                    models.DateTimeField(
                        help_text="when that was last seen to be so", null=True
                    ),
                ),
                ("uptime_seconds", models.BigIntegerField(null=True)),
                ("cpu_percent", models.FloatField(null=True)),
                ("memory_percent", models.FloatField(null=True)),
                ("error_ratio", models.FloatField(null=True)),
                ("application_metrics", models.JSONField(default=dict)),
                (
                    "secure_boot",
                    models.CharField(
                        choices=[
                            ("enabled", "Enabled"),
                            ("disabled", "Disabled"),
                            ("unknown", "Unknown"),
                        ],
                        default="unknown",
                        max_length=8,
                    ),
                ),
                ("firmware_version", models.CharField(blank=True, max_length=64)),
                ("firmware_checksum", models.CharField(blank=True, max_length=64)),
                (
                    "other_slot_checksum",
                    models.CharField(
                        help_text="of the image that it keeps beside the running one and can go back to by itself; empty: none; null: its agent cannot",
                        max_length=64,
                        null=True,
                    ),
                ),
                ("image_since", models.DateTimeField(null=True)),
                (
                    "verdict",
                    models.CharField(
                        choices=[
                            ("healthy", "Healthy"),
                            ("degraded", "Degraded"),
                            ("unhealthy", "Unhealthy"),
                            ("unknown", "Unknown"),
                        ],
                        default="unknown",
                        max_length=9,
                    ),
                ),
                ("verdict_reason", models.CharField(blank=True, max_length=200)),
                ("watch_id", models.UUIDField(null=True)),
                (
                    "watch_checksum",
                    models.CharField(
                        blank=True,
                        help_text="only this image is judged by the watch",
                        max_length=64,
                    ),
                ),
                ("watch_until", models.DateTimeField(null=True)),
                (
                    "watch_interval_seconds",
                    models.PositiveSmallIntegerField(default=30),
                ),
                ("limits", models.JSONField(null=True)),
                ("offline_after_seconds", models.PositiveIntegerField(null=True)),
                (
                    "silence_counts_from",
                    models.DateTimeField(
                        help_text="offline is judged from here; empty: not yet",
                        null=True,
                    ),
                ),
                (
                    "attentive_until",
                    models.DateTimeField(
                        help_text="heartbeats every minute until then", null=True
                    ),
                ),
                ("healthy_since", models.DateTimeField(null=True)),
                (
                    "healthy_at",
                    models.DateTimeField(
                        help_text="the last of the healthy heartbeats since then",
                        null=True,
                    ),
                ),
                ("healthy_count", models.PositiveIntegerField(default=0)),
                ("cpu_since", models.DateTimeField(null=True)),
                ("memory_since", models.DateTimeField(null=True)),
                ("error_since", models.DateTimeField(null=True)),
                (
                    "breach",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("offline", "Offline"),
                            ("cpu", "Cpu"),
                            ("memory", "Memory"),
                            ("error_rate", "Error Rate"),
                        ],
                        max_length=10,
                    ),
                ),
                ("breach_detail", models.CharField(blank=True, max_length=200)),
                ("breach_at", models.DateTimeField(null=True)),
                (
                    "anomaly",
                    models.CharField(
                        blank=True,
                        help_text="the first of the watch: what was far from usual, and how sure it is",
                        max_length=200,
                    ),
                ),
                ("announced_anomaly_at", models.DateTimeField(null=True)),
                (
                    "left_image_at",
                    models.DateTimeField(
                        help_text="when it ceased to run the image that is watched",
                        null=True,
                    ),
                ),
                (
                    "baseline_since",
                    models.DateTimeField(
                        help_text="when the first report of the baseline came",
                        null=True,
                    ),
                ),
                ("baseline_samples", models.PositiveIntegerField(default=0)),
                ("baseline_cpu_mean", models.FloatField(default=0)),
                ("baseline_cpu_variance", models.FloatField(default=0)),
                ("baseline_memory_mean", models.FloatField(default=0)),
                ("baseline_memory_variance", models.FloatField(default=0)),
                ("baseline_error_samples", models.PositiveIntegerField(default=0)),
                ("baseline_error_mean", models.FloatField(default=0)),
                ("baseline_error_variance", models.FloatField(default=0)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("watch_id__isnull", False)),
                        fields=["watch_id"],
                        name="state_watched",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("watch_id__isnull", False),
                            models.Q(("breach", ""), _negated=True),
                        ),
                        fields=["watch_id"],
                        name="state_breached",
                    ),
                    models.Index(
                        condition=models.Q(("verdict__in", ["degraded", "unhealthy"])),
                        fields=["verdict"],
                        name="state_unwell",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("left_image_at__isnull", False),
                            ("watch_id__isnull", False),
                        ),
                        fields=["watch_id"],
                        name="state_left_image",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="DeviceEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("at", models.DateTimeField()),
                ("level", models.CharField(max_length=7)),
                (
                    "event",
                    models.CharField(
                        choices=[
                            ("device.offline", "Offline"),
                            ("device.online", "Online"),
                            ("device.unhealthy", "Unhealthy"),
                            ("device.healthy", "Healthy"),
                            ("device.anomaly", "Anomaly"),
                        ],
                        max_length=40,
                    ),
                ),
                ("message", models.CharField(max_length=200)),
                (
                    "device",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="health_events",
                        to="devices.device",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["device", "-id"], name="device_event_newest"),
                    django.contrib.postgres.indexes.BrinIndex(
                        fields=["at"], name="device_event_age"
                    ),
                ],
            },
        ),
        # Room in each page keeps a state's new row beside its old one.
        migrations.RunSQL(
            "ALTER TABLE health_devicestate SET (fillfactor = 60)",
            "ALTER TABLE health_devicestate RESET (fillfactor)",
        ),
    ]
