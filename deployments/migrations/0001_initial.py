"""Deployments, their targets and orders, events and who is told of them."""

import datetime as dt
import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.expressions
import django.utils.timezone
import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("devices", "0001_initial"),
        ("firmware", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(
            "CREATE SEQUENCE deployments_update_number AS integer MINVALUE 1",
            "DROP SEQUENCE deployments_update_number",
        ),
        migrations.CreateModel(
            name="Gateway",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                ("description", models.CharField(blank=True, max_length=200)),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40),
                        default=list,
                        size=None,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("disabled_reason", models.CharField(blank=True, max_length=200)),
                ("scheme", models.CharField(max_length=40)),
                ("sealed_url", models.BinaryField()),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="MailRecipient",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                ("description", models.CharField(blank=True, max_length=200)),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40),
                        default=list,
                        size=None,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("disabled_reason", models.CharField(blank=True, max_length=200)),
                ("address", models.EmailField(max_length=254, unique=True)),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("type", models.CharField(max_length=40)),
                ("at", models.DateTimeField(db_index=True)),
                ("payload", models.JSONField()),
            ],
        ),
        migrations.CreateModel(
            name="Webhook",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                ("description", models.CharField(blank=True, max_length=200)),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40),
                        default=list,
                        size=None,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("disabled_reason", models.CharField(blank=True, max_length=200)),
                ("url", models.CharField(max_length=2000)),
                ("sealed_secret", models.BinaryField()),
                ("previous_sealed_secret", models.BinaryField(null=True)),
                ("previous_secret_until", models.DateTimeField(null=True)),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Deployment",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                ("name", models.CharField(max_length=128)),
                (
                    "strategy",
                    models.CharField(
                        choices=[
                            ("Direct", "Direct"),
                            ("Regional", "Regional"),
                            ("Canary", "Canary"),
                            ("BlueGreen", "Blue-green"),
                            ("Rolling", "Rolling"),
                        ],
                        max_length=10,
                    ),
                ),
                ("parameters", models.JSONField(default=dict)),
                ("selection", models.JSONField(default=dict)),
                ("health_criteria", models.JSONField(default=dict)),
                ("rollback_thresholds", models.JSONField(default=dict)),
                ("health_threshold", models.FloatField(help_text="percent")),
                (
                    "on_warning",
                    models.CharField(
                        choices=[("proceed", "Proceed"), ("pause", "Pause")],
                        max_length=8,
                    ),
                ),
                (
                    "on_late_breach",
                    models.CharField(
                        choices=[("deployment", "Deployment"), ("device", "Device")],
                        default="deployment",
                        max_length=10,
                    ),
                ),
                (
                    "offline_devices",
                    models.CharField(
                        choices=[
                            ("wait", "Wait"),
                            ("exclude", "Exclude"),
                            ("reject", "Reject"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "busy_devices",
                    models.CharField(
                        choices=[
                            ("wait", "Wait"),
                            ("exclude", "Exclude"),
                            ("reject", "Reject"),
                        ],
                        max_length=8,
                    ),
                ),
                ("offline_deadline", models.DurationField()),
                ("device_timeout", models.DurationField()),
                ("max_attempts", models.PositiveSmallIntegerField(default=3)),
                ("require_approval_per_stage", models.BooleanField(default=False)),
                ("maintenance_window", models.JSONField(null=True)),
                ("max_devices_per_minute", models.PositiveIntegerField(null=True)),
                ("start_spread", models.DurationField(default=dt.timedelta(0))),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("Scheduled", "Scheduled"),
                            ("Preparing", "Preparing"),
                            ("Running", "Running"),
                            ("Paused", "Paused"),
                            ("Completed", "Completed"),
                            ("RollingBack", "Rolling Back"),
                            ("RolledBack", "Rolled Back"),
                            ("Failed", "Failed"),
                            ("Cancelled", "Cancelled"),
                        ],
                        max_length=12,
                    ),
                ),
                (
                    "pause_reasons",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(
                            choices=[
                                ("operator", "Operator"),
                                ("health", "Health"),
                                ("window", "Window"),
                                ("approval", "Approval"),
                            ],
                            max_length=10,
                        ),
                        default=list,
                        size=None,
                    ),
                ),
                ("pause_detail", models.TextField(blank=True)),
                ("paused_at", models.DateTimeField(null=True)),
                (
                    "live_fleet",
                    models.CharField(
                        blank=True,
                        choices=[("blue", "Blue"), ("green", "Green")],
                        help_text="blue-green only",
                        max_length=5,
                    ),
                ),
                ("cancel_requested_at", models.DateTimeField(null=True)),
                ("rollback_reason", models.TextField(blank=True)),
                ("failure_reason", models.TextField(blank=True)),
                ("open_rank", models.PositiveIntegerField(default=0)),
                ("target_count", models.PositiveIntegerField(default=0)),
                ("matched_count", models.PositiveIntegerField(default=0)),
                ("waiting_for", models.TextField(blank=True)),
                ("next_check_at", models.DateTimeField(null=True)),
                ("scheduled_at", models.DateTimeField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                (
                    "turn",
                    models.PositiveSmallIntegerField(
                        help_text="blue-green only: the stage that orders are given in",
                        null=True,
                    ),
                ),
                (
                    "resumed_at",
                    models.DateTimeField(
                        help_text="from when waiting for offline devices is counted",
                        null=True,
                    ),
                ),
                ("rollback_started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "watching_until",
                    models.DateTimeField(
                        help_text="its devices are judged after its end until then",
                        null=True,
                    ),
                ),
                (
                    "copied_from",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="deployments.deployment",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "firmware",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.firmware",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Event",
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
                (
                    "level",
                    models.CharField(
                        choices=[
                            ("INFO", "Info"),
                            ("WARNING", "Warning"),
                            ("ERROR", "Error"),
                        ],
                        max_length=7,
                    ),
                ),
                ("event", models.CharField(max_length=40)),
                ("stage_number", models.PositiveSmallIntegerField(null=True)),
                ("message", models.TextField()),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="events",
                        to="deployments.deployment",
                    ),
                ),
                (
                    "device",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to="devices.device",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Hold",
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
                ("phase", models.CharField(max_length=16)),
                (
                    "fleet",
                    models.CharField(
                        choices=[("blue", "Blue"), ("green", "Green")], max_length=5
                    ),
                ),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "acknowledged_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="holds",
                        to="deployments.deployment",
                    ),
                ),
            ],
            options={
                "ordering": ("pk",),
            },
        ),
        migrations.CreateModel(
            name="Quarantine",
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
                ("failures", models.PositiveIntegerField(default=0)),
                ("last_code", models.CharField(max_length=32)),
                ("updated_at", models.DateTimeField()),
                ("quarantined_at", models.DateTimeField(null=True)),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quarantines",
                        to="devices.device",
                    ),
                ),
                (
                    "firmware",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        to="firmware.firmware",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Rollback",
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
                ("started_at", models.DateTimeField()),
                (
                    "stage_number",
                    models.PositiveSmallIntegerField(
                        help_text="whose gate decided; none when a person did",
                        null=True,
                    ),
                ),
                ("reason", models.TextField()),
                ("facts", models.JSONField(default=dict)),
                ("scope", models.JSONField(default=dict)),
                ("ends_deployment", models.BooleanField(default=True)),
                ("course", models.JSONField(default=list)),
                ("begun", models.PositiveSmallIntegerField(default=0)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="rollbacks",
                        to="deployments.deployment",
                    ),
                ),
            ],
            options={
                "ordering": ("-started_at",),
            },
        ),
        migrations.CreateModel(
            name="Stage",
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
                ("number", models.PositiveSmallIntegerField()),
                ("name", models.CharField(max_length=64)),
                ("boundary", models.PositiveIntegerField()),
                ("size", models.PositiveIntegerField()),
                ("wait_seconds", models.FloatField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("open", "Open"),
                            ("passed", "Passed"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=7,
                    ),
                ),
                ("opened_at", models.DateTimeField(null=True)),
                ("settled_at", models.DateTimeField(null=True)),
                ("passed_at", models.DateTimeField(null=True)),
                ("is_accepted", models.BooleanField(default=False)),
                (
                    "known_unreached",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="devices that the image had not reached when a person last resumed",
                    ),
                ),
                ("warning", models.TextField(blank=True)),
                ("approved_at", models.DateTimeField(null=True)),
                (
                    "approved_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="stages",
                        to="deployments.deployment",
                    ),
                ),
            ],
            options={
                "ordering": ("number",),
            },
        ),
        migrations.CreateModel(
            name="Target",
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
                ("rank", models.PositiveIntegerField()),
                ("stage_number", models.PositiveSmallIntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("notified", "Notified"),
                            ("downloading", "Downloading"),
                            ("verifying", "Verifying"),
                            ("installing", "Installing"),
                            ("rebooting", "Rebooting"),
                            ("confirming", "Confirming"),
                            ("success", "Success"),
                            ("failed", "Failed"),
                            ("rolling_back", "Rolling Back"),
                            ("rolled_back", "Rolled Back"),
                            ("skipped", "Skipped"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="pending",
                        max_length=12,
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("rollback_attempt", models.PositiveSmallIntegerField(default=0)),
                ("from_version", models.CharField(blank=True, max_length=64)),
                ("from_checksum", models.CharField(blank=True, max_length=64)),
                ("progress_percent", models.FloatField(null=True)),
                ("error_code", models.CharField(blank=True, max_length=32)),
                ("message", models.CharField(blank=True, max_length=500)),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("exposed_at", models.DateTimeField(null=True)),
                ("settled_at", models.DateTimeField(null=True)),
                (
                    "returning_since",
                    models.DateTimeField(
                        help_text="when it was decided that the device goes back",
                        null=True,
                    ),
                ),
                (
                    "is_withdrawn",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="taken out by an operator: no evidence, and not tried again",
                    ),
                ),
                ("updated_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "deployment",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="targets",
                        to="deployments.deployment",
                    ),
                ),
                (
                    "device",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="devices.device",
                    ),
                ),
                (
                    "from_firmware",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="firmware.firmware",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Update",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "number",
                    models.PositiveIntegerField(
                        db_default=django.db.models.expressions.RawSQL(
                            "nextval('deployments_update_number')", ()
                        ),
                        help_text="for device protocols that count in 32 bits",
                        unique=True,
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("install", "Install"), ("rollback", "Rollback")],
                        max_length=8,
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("notified", "Notified"),
                            ("downloading", "Downloading"),
                            ("verifying", "Verifying"),
                            ("installing", "Installing"),
                            ("rebooting", "Rebooting"),
                            ("confirming", "Confirming"),
                            ("success", "Success"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                            ("superseded", "Superseded"),
                        ],
                        default="notified",
                        max_length=11,
                    ),
                ),
                ("reboot_required", models.BooleanField()),
                ("boot_id_before", models.CharField(blank=True, max_length=64)),
                (
                    "boot_count_before",
                    models.PositiveIntegerField(
                        help_text="boots of the device up to that one, if any was heard",
                        null=True,
                    ),
                ),
                ("baseline", models.JSONField(default=dict)),
                (
                    "exempt",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=10),
                        default=list,
                        size=None,
                    ),
                ),
                ("last_sequence", models.PositiveBigIntegerField(default=0)),
                ("offered_at", models.DateTimeField()),
                ("deadline", models.DateTimeField()),
                ("installing_at", models.DateTimeField(null=True)),
                ("rebooting_at", models.DateTimeField(null=True)),
                (
                    "gave_up_at",
                    models.DateTimeField(
                        help_text="when the device itself said that it failed",
                        null=True,
                    ),
                ),
                ("claimed_at", models.DateTimeField(null=True)),
                ("closed_at", models.DateTimeField(null=True)),
                ("error_code", models.CharField(blank=True, max_length=32)),
                ("message", models.CharField(blank=True, max_length=500)),
                ("durations", models.JSONField(default=dict)),
                ("traceparent", models.CharField(blank=True, max_length=64)),
                (
                    "deployment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="deployments.deployment",
                    ),
                ),
                (
                    "device",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="updates",
                        to="devices.device",
                    ),
                ),
                (
                    "firmware",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.firmware",
                    ),
                ),
                (
                    "manifest",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.manifest",
                    ),
                ),
                (
                    "target",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="updates",
                        to="deployments.target",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Report",
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
                ("received_at", models.DateTimeField()),
                ("sequence", models.PositiveBigIntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("downloading", "Downloading"),
                            ("verifying", "Verifying"),
                            ("installing", "Installing"),
                            ("rebooting", "Rebooting"),
                            ("confirming", "Confirming"),
                            ("failed", "Failed"),
                        ],
                        max_length=11,
                    ),
                ),
                ("was_applied", models.BooleanField()),
                ("body", models.JSONField()),
                (
                    "update",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="reports",
                        to="deployments.update",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("delivered", "Delivered"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("attempts_before_resend", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("last_attempt_at", models.DateTimeField(null=True)),
                ("delivered_at", models.DateTimeField(null=True)),
                ("response_status", models.PositiveSmallIntegerField(null=True)),
                ("error", models.CharField(blank=True, max_length=300)),
                (
                    "gateway",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="deployments.gateway",
                    ),
                ),
                (
                    "recipient",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="deployments.mailrecipient",
                    ),
                ),
                (
                    "notification",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="deployments.notification",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="deployments.webhook",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
            },
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(
                condition=models.Q(
                    (
                        "status__in",
                        ["Scheduled", "Preparing", "Running", "Paused", "RollingBack"],
                    )
                ),
                fields=["created_at"],
                name="deployment_active",
            ),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(fields=["-created_at"], name="deployment_newest"),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(
                condition=models.Q(("watching_until__isnull", False)),
                fields=["created_at"],
                name="deployment_watched",
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="deployment",
            trigger=pgtrigger.compiler.Trigger(
                name="deployment_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{Scheduled:Preparing,Scheduled:Paused,Scheduled:Cancelled,Scheduled:Failed,Preparing:Running,Preparing:Paused,Preparing:Cancelled,Preparing:Failed,Running:Paused,Running:Completed,Running:RollingBack,Running:Cancelled,Running:Failed,Paused:Scheduled,Paused:Running,Paused:RollingBack,Paused:Cancelled,Completed:RollingBack,Completed:Running,RollingBack:RolledBack,RollingBack:Failed}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="f39066870a83acb5b116ce1323c40954cbbb173b",
                    operation="UPDATE",
                    pgid="pgtrigger_deployment_status_moves_81434",
                    table="deployments_deployment",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(fields=["deployment", "-id"], name="event_newest"),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="event",
            trigger=pgtrigger.compiler.Trigger(
                name="event_written_once",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN (OLD."deployment_id" IS DISTINCT FROM (NEW."deployment_id") OR OLD."at" IS DISTINCT FROM (NEW."at") OR OLD."level" IS DISTINCT FROM (NEW."level") OR OLD."event" IS DISTINCT FROM (NEW."event"))',
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update rows from % table', TG_TABLE_NAME;",
                    hash="8766940ba04e83182c9bd59575b0ada63c18e9de",
                    operation="UPDATE",
                    pgid="pgtrigger_event_written_once_47d9e",
                    table="deployments_event",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="event",
            trigger=pgtrigger.compiler.Trigger(
                name="event_words_stay",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN (OLD."message" IS DISTINCT FROM (NEW."message"))',
                    func="\n                    IF current_setting('hotswap.erasing', true) = 'on' THEN\n                        RETURN NEW;\n                    END IF;\n                    RAISE EXCEPTION 'what an event says is written once';\n                ",
                    hash="16171608ca1793a7d4a563fe30cfc887b05e79dd",
                    operation="UPDATE",
                    pgid="pgtrigger_event_words_stay_e2a1b",
                    table="deployments_event",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.UniqueConstraint(
                fields=("deployment", "phase"), name="one_hold_a_phase"
            ),
        ),
        migrations.AddIndex(
            model_name="quarantine",
            index=models.Index(
                condition=models.Q(("quarantined_at__isnull", False)),
                fields=["firmware", "device"],
                name="quarantine_active",
            ),
        ),
        migrations.AddConstraint(
            model_name="quarantine",
            constraint=models.UniqueConstraint(
                fields=("device", "firmware"), name="one_quarantine_an_image"
            ),
        ),
        migrations.AddIndex(
            model_name="rollback",
            index=models.Index(fields=["-started_at", "-id"], name="rollback_newest"),
        ),
        migrations.AddIndex(
            model_name="rollback",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", True)),
                fields=["deployment"],
                name="rollback_unfinished",
            ),
        ),
        migrations.AddConstraint(
            model_name="stage",
            constraint=models.UniqueConstraint(
                fields=("deployment", "number"), name="one_stage_a_number"
            ),
        ),
        migrations.AddIndex(
            model_name="target",
            index=models.Index(
                fields=["deployment", "stage_number", "status"], name="target_counts"
            ),
        ),
        migrations.AddIndex(
            model_name="target",
            index=models.Index(
                condition=models.Q(("status__in", ["pending", "rolling_back"])),
                fields=["device"],
                name="target_offerable",
            ),
        ),
        migrations.AddConstraint(
            model_name="target",
            constraint=models.UniqueConstraint(
                fields=("device", "deployment"), name="one_target_a_device"
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="target",
            trigger=pgtrigger.compiler.Trigger(
                name="target_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition="WHEN (OLD.status <> NEW.status AND NEW.status <> ALL (CASE OLD.status WHEN 'pending' THEN '{notified,skipped,cancelled,rolling_back,failed}'::text[] WHEN 'notified' THEN '{downloading,verifying,installing,rebooting,confirming,pending,failed,rolling_back,cancelled}'::text[] WHEN 'downloading' THEN '{verifying,installing,rebooting,confirming,pending,failed,rolling_back,cancelled}'::text[] WHEN 'verifying' THEN '{downloading,installing,rebooting,confirming,pending,failed,rolling_back,cancelled}'::text[] WHEN 'installing' THEN '{downloading,verifying,rebooting,confirming,pending,failed,rolling_back,cancelled}'::text[] WHEN 'rebooting' THEN '{downloading,verifying,installing,confirming,pending,failed,rolling_back,cancelled}'::text[] WHEN 'confirming' THEN '{downloading,verifying,installing,rebooting,pending,failed,rolling_back,cancelled,success}'::text[] WHEN 'rolling_back' THEN '{cancelled,rolled_back,failed,skipped}'::text[] WHEN 'success' THEN '{failed,rolling_back,skipped}'::text[] WHEN 'failed' THEN '{rolling_back,rolled_back,pending}'::text[] WHEN 'rolled_back' THEN '{pending}'::text[] ELSE '{}'::text[] END))",
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{pending:notified,pending:skipped,pending:cancelled,pending:rolling_back,pending:failed,notified:downloading,notified:verifying,notified:installing,notified:rebooting,notified:confirming,downloading:verifying,downloading:installing,downloading:rebooting,downloading:confirming,verifying:downloading,verifying:installing,verifying:rebooting,verifying:confirming,installing:downloading,installing:verifying,installing:rebooting,installing:confirming,rebooting:downloading,rebooting:verifying,rebooting:installing,rebooting:confirming,confirming:downloading,confirming:verifying,confirming:installing,confirming:rebooting,notified:pending,downloading:pending,verifying:pending,installing:pending,rebooting:pending,confirming:pending,notified:failed,downloading:failed,verifying:failed,installing:failed,rebooting:failed,confirming:failed,notified:rolling_back,downloading:rolling_back,verifying:rolling_back,installing:rolling_back,rebooting:rolling_back,confirming:rolling_back,notified:cancelled,downloading:cancelled,verifying:cancelled,installing:cancelled,rebooting:cancelled,confirming:cancelled,rolling_back:cancelled,confirming:success,success:failed,success:rolling_back,failed:rolling_back,rolling_back:rolled_back,rolling_back:failed,failed:rolled_back,success:skipped,rolling_back:skipped,failed:pending,rolled_back:pending}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="38c25699e283de69899ac68f321094cba9ed1021",
                    operation="UPDATE",
                    pgid="pgtrigger_target_status_moves_d578b",
                    table="deployments_target",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="update",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", True)),
                fields=["deployment"],
                name="update_open",
            ),
        ),
        migrations.AddIndex(
            model_name="update",
            index=models.Index(fields=["device", "-offered_at"], name="update_newest"),
        ),
        migrations.AddIndex(
            model_name="update",
            index=models.Index(
                fields=["deployment", "-offered_at"], name="update_pace"
            ),
        ),
        migrations.AddConstraint(
            model_name="update",
            constraint=models.UniqueConstraint(
                condition=models.Q(("closed_at__isnull", True)),
                fields=("device",),
                name="one_open_update_a_device",
            ),
        ),
        migrations.AddIndex(
            model_name="report",
            index=models.Index(fields=["update", "sequence"], name="report_sequence"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("status", "pending")),
                fields=["next_attempt_at"],
                name="delivery_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("gateway__isnull", True),
                        ("recipient__isnull", True),
                        ("webhook__isnull", False),
                    ),
                    models.Q(
                        ("gateway__isnull", True),
                        ("recipient__isnull", False),
                        ("webhook__isnull", True),
                    ),
                    models.Q(
                        ("gateway__isnull", False),
                        ("recipient__isnull", True),
                        ("webhook__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="delivery_to_one",
            ),
        ),
        # Room in each page keeps an order's new row beside its old one.
        migrations.RunSQL(
            "ALTER TABLE deployments_update SET (fillfactor = 70)",
            "ALTER TABLE deployments_update RESET (fillfactor)",
        ),
    ]
