"""Devices, their keys, groups, imports and enrolments."""

import uuid
from pathlib import Path

import django.contrib.postgres.indexes
import django.db.models.deletion
import django.utils.timezone
import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("firmware", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(
            (SQL / "device_version_key.sql").read_text(),
            "DROP FUNCTION hotswap_device_version_key(uuid, text, text)",
        ),
        migrations.CreateModel(
            name="DeviceGroup",
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
                ("name", models.CharField(max_length=128, unique=True)),
                ("description", models.CharField(blank=True, max_length=500)),
                (
                    "type",
                    models.CharField(
                        choices=[("Static", "Static"), ("Dynamic", "Dynamic")],
                        default="Static",
                        max_length=8,
                    ),
                ),
                ("rule", models.JSONField(null=True)),
            ],
            options={
                "ordering": ("name",),
            },
        ),
        migrations.CreateModel(
            name="Device",
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
                ("device_id", models.CharField(max_length=128, unique=True)),
                ("region", models.CharField(max_length=32)),
                ("tags", models.JSONField(blank=True, default=dict)),
                ("metadata", models.JSONField(blank=True, default=dict)),
                ("enabled", models.BooleanField(default=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("firmware_version", models.CharField(blank=True, max_length=64)),
                (
                    "version_key",
                    models.CharField(
                        blank=True,
                        db_collation="C",
                        db_default="",
                        default="",
                        editable=False,
                        help_text="sorts as what it runs does; made by the database",
                        max_length=255,
                    ),
                ),
                ("firmware_checksum", models.CharField(blank=True, max_length=64)),
                (
                    "previous_firmware_version",
                    models.CharField(blank=True, max_length=64),
                ),
                (
                    "alarm_at",
                    models.DateTimeField(
                        help_text="when a retired key was used; empty once acknowledged",
                        null=True,
                    ),
                ),
                (
                    "alarm_address",
                    models.GenericIPAddressField(
                        help_text="from where the retired key was used", null=True
                    ),
                ),
                (
                    "security_version",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="highest that it has confirmed to run; it refuses lower ones",
                    ),
                ),
                (
                    "erased_at",
                    models.DateTimeField(
                        help_text="when all but the pseudonym was erased", null=True
                    ),
                ),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.devicemodel",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeviceCertificate",
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
                (
                    "fingerprint",
                    models.CharField(
                        help_text="SHA-256 of the DER, in hexadecimal",
                        max_length=64,
                        unique=True,
                    ),
                ),
                ("subject", models.CharField(max_length=256)),
                ("not_before", models.DateTimeField()),
                ("not_after", models.DateTimeField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="certificates",
                        to="devices.device",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeviceImport",
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
                (
                    "format",
                    models.CharField(
                        choices=[("csv", "CSV"), ("ndjson", "NDJSON")], max_length=8
                    ),
                ),
                (
                    "columns",
                    models.JSONField(default=list, help_text="header of a CSV file"),
                ),
                (
                    "mode",
                    models.CharField(
                        choices=[("create", "Refuse them"), ("upsert", "Change them")],
                        default="create",
                        max_length=8,
                    ),
                ),
                (
                    "is_dry_run",
                    models.BooleanField(
                        default=False,
                        help_text="tells what it would do, and does nothing",
                    ),
                ),
                (
                    "is_acknowledged",
                    models.BooleanField(
                        default=False,
                        help_text="may change whom deployments to come reach",
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("Pending", "Pending"),
                            ("Running", "Running"),
                            ("Completed", "Completed"),
                            ("Failed", "Failed"),
                        ],
                        default="Pending",
                        max_length=16,
                    ),
                ),
                ("total", models.PositiveIntegerField(default=0)),
                ("created", models.PositiveIntegerField(default=0)),
                ("updated", models.PositiveIntegerField(default=0)),
                ("unchanged", models.PositiveIntegerField(default=0)),
                ("rejected", models.PositiveIntegerField(default=0)),
                (
                    "done_through",
                    models.PositiveIntegerField(
                        default=0, help_text="the last line that was worked off"
                    ),
                ),
                (
                    "attempts",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="workers that tried the chunk that is next"
                    ),
                ),
                ("leased_by", models.UUIDField(null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("failure", models.CharField(blank=True, max_length=500)),
                (
                    "keys_fetched_at",
                    models.DateTimeField(
                        help_text="when the keys were first downloaded", null=True
                    ),
                ),
                ("keys_erased_at", models.DateTimeField(null=True)),
                (
                    "applied_as",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="devices.deviceimport",
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeviceImportKeys",
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
                ("sealed", models.BinaryField()),
                (
                    "batch",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="key_chunks",
                        to="devices.deviceimport",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeviceImportLine",
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
                ("line", models.PositiveIntegerField()),
                ("raw", models.BinaryField(null=True)),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("created", "Created"),
                            ("updated", "Updated"),
                            ("unchanged", "Unchanged"),
                            ("rejected", "Rejected"),
                        ],
                        max_length=16,
                    ),
                ),
                ("changes", models.JSONField(null=True)),
                ("device_id", models.CharField(blank=True, max_length=128)),
                ("code", models.CharField(blank=True, max_length=64)),
                ("detail", models.CharField(blank=True, max_length=500)),
                (
                    "batch",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="lines",
                        to="devices.deviceimport",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeviceKey",
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
                ("digest", models.CharField(max_length=64, unique=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("expires_at", models.DateTimeField()),
                (
                    "superseded_at",
                    models.DateTimeField(
                        help_text="when a newer key or a revocation took its place",
                        null=True,
                    ),
                ),
                ("first_used_at", models.DateTimeField(null=True)),
                (
                    "expiry_told_at",
                    models.DateTimeField(
                        help_text="when the audit trail said that it is about to expire",
                        null=True,
                    ),
                ),
                (
                    "reused_at",
                    models.DateTimeField(
                        help_text="when its use after its retirement last raised an alarm",
                        null=True,
                    ),
                ),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="keys",
                        to="devices.device",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="EnrolmentToken",
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
                ("digest", models.CharField(max_length=64, unique=True)),
                ("region", models.CharField(blank=True, max_length=32)),
                ("tags", models.JSONField(blank=True, default=dict)),
                ("needs_approval", models.BooleanField(default=True)),
                ("max_uses", models.PositiveIntegerField(null=True)),
                (
                    "uses",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="devices that have asked with it, rejected ones included",
                    ),
                ),
                ("expires_at", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(null=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "model",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.devicemodel",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="EnrolmentRequest",
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
                ("device_id", models.CharField(max_length=128)),
                ("region", models.CharField(max_length=32)),
                ("tags", models.JSONField(blank=True, default=dict)),
                ("firmware_version", models.CharField(blank=True, max_length=64)),
                ("secret_digest", models.CharField(max_length=64)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("Pending", "Pending"),
                            ("Approved", "Approved"),
                            ("Rejected", "Rejected"),
                            ("Completed", "Completed"),
                        ],
                        default="Pending",
                        max_length=16,
                    ),
                ),
                ("comment", models.CharField(blank=True, max_length=2000)),
                ("decided_at", models.DateTimeField(null=True)),
                ("completed_at", models.DateTimeField(null=True)),
                (
                    "decided_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.devicemodel",
                    ),
                ),
                (
                    "registered",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="devices.device",
                    ),
                ),
                (
                    "token",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="devices.enrolmenttoken",
                    ),
                ),
            ],
            options={
                "verbose_name": "enrolment",
            },
        ),
        migrations.CreateModel(
            name="FirmwareRun",
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
                ("version", models.CharField(max_length=64)),
                ("checksum", models.CharField(max_length=64)),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField(null=True)),
                (
                    "how",
                    models.CharField(
                        choices=[
                            ("reported", "Reported"),
                            ("proved", "Proved"),
                            ("returned", "Returned"),
                            ("tried", "Tried"),
                        ],
                        default="reported",
                        max_length=8,
                    ),
                ),
                (
                    "device",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="firmware_runs",
                        to="devices.device",
                    ),
                ),
                (
                    "firmware",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="firmware.firmware",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="GroupMembership",
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
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="devices.device"
                    ),
                ),
                (
                    "group",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        to="devices.devicegroup",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="devicegroup",
            name="members",
            field=models.ManyToManyField(
                related_name="groups",
                through="devices.GroupMembership",
                to="devices.device",
            ),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["model", "region"], name="device_model_region"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["region"], name="device_region"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["firmware_checksum"], name="device_firmware"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(
                condition=models.Q(("alarm_at__isnull", False)),
                fields=["alarm_at"],
                name="device_alarm",
            ),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["version_key"], name="device_version"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["firmware_version"], name="device_says_version"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(
                condition=models.Q(("erased_at__isnull", False)),
                fields=["erased_at"],
                name="device_erased",
            ),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(
                condition=models.Q(("security_version__gt", 0)),
                fields=["security_version"],
                name="device_raised",
            ),
        ),
        migrations.AddIndex(
            model_name="device",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["tags"], name="device_tags", opclasses=["jsonb_path_ops"]
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="device",
            trigger=pgtrigger.compiler.Trigger(
                name="device_version_key",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    NEW.version_key := hotswap_device_version_key(\n                        NEW.model_id, NEW.firmware_version, NEW.firmware_checksum\n                    );\n                    RETURN NEW;\n                ",
                    hash="9d2eacfe215b0f8eeab3ec0864460fcb6f1b4305",
                    operation='INSERT OR UPDATE OF "model_id", "firmware_version", "firmware_checksum", "version_key"',
                    pgid="pgtrigger_device_version_key_2c45e",
                    table="devices_device",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="deviceimport",
            index=models.Index(
                condition=models.Q(("status__in", ["Pending", "Running"])),
                fields=["created_at"],
                name="device_import_open",
            ),
        ),
        migrations.AddIndex(
            model_name="deviceimport",
            index=models.Index(fields=["-created_at"], name="device_import_newest"),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="deviceimport",
            trigger=pgtrigger.compiler.Trigger(
                name="device_import_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{Pending:Running,Running:Completed,Running:Failed}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="b115413d855187665d90e9c645a3718639acb173",
                    operation="UPDATE",
                    pgid="pgtrigger_device_import_status_moves_34aff",
                    table="devices_deviceimport",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="deviceimportline",
            index=models.Index(
                condition=models.Q(("outcome", "rejected")),
                fields=["batch", "line"],
                name="device_import_rejected",
            ),
        ),
        migrations.AddIndex(
            model_name="deviceimportline",
            index=models.Index(
                condition=models.Q(("changes__isnull", False)),
                fields=["batch", "device_id"],
                name="device_import_named",
            ),
        ),
        migrations.AddConstraint(
            model_name="deviceimportline",
            constraint=models.UniqueConstraint(
                fields=("batch", "line"), name="one_row_a_line_of_an_import"
            ),
        ),
        migrations.AddIndex(
            model_name="devicekey",
            index=models.Index(
                condition=models.Q(("superseded_at__isnull", True)),
                fields=["expires_at"],
                name="device_key_current_expiry",
            ),
        ),
        migrations.AddIndex(
            model_name="devicekey",
            index=models.Index(
                condition=models.Q(
                    ("expiry_told_at__isnull", True), ("superseded_at__isnull", True)
                ),
                fields=["expires_at"],
                name="device_key_untold_expiry",
            ),
        ),
        migrations.AddConstraint(
            model_name="devicekey",
            constraint=models.UniqueConstraint(
                condition=models.Q(("superseded_at__isnull", True)),
                fields=("device",),
                name="one_current_key_a_device",
            ),
        ),
        migrations.AddConstraint(
            model_name="enrolmenttoken",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("max_uses__isnull", True),
                    ("uses__lte", models.F("max_uses")),
                    _connector="OR",
                ),
                name="enrolment_token_uses_within_limit",
            ),
        ),
        migrations.AddIndex(
            model_name="enrolmentrequest",
            index=models.Index(
                fields=["status", "created_at"], name="enrolment_status"
            ),
        ),
        migrations.AddIndex(
            model_name="enrolmentrequest",
            index=models.Index(fields=["-created_at"], name="enrolment_newest"),
        ),
        migrations.AddIndex(
            model_name="enrolmentrequest",
            index=models.Index(fields=["device_id"], name="enrolment_device_id"),
        ),
        migrations.AddConstraint(
            model_name="enrolmentrequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status__in", ["Pending", "Approved"])),
                fields=("device_id",),
                name="one_open_enrolment_a_device",
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="enrolmentrequest",
            trigger=pgtrigger.compiler.Trigger(
                name="enrolment_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{Pending:Approved,Pending:Rejected,Approved:Rejected,Approved:Completed}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="55a60ca4784476559329c1c736ee133cacafcf24",
                    operation="UPDATE",
                    pgid="pgtrigger_enrolment_status_moves_2c2a7",
                    table="devices_enrolmentrequest",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="firmwarerun",
            index=models.Index(fields=["device", "-id"], name="firmware_run_newest"),
        ),
        migrations.AddConstraint(
            model_name="firmwarerun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("until__isnull", True)),
                fields=("device",),
                name="one_open_run_a_device",
            ),
        ),
        migrations.AddConstraint(
            model_name="groupmembership",
            constraint=models.UniqueConstraint(
                fields=("group", "device"), name="one_membership_a_device"
            ),
        ),
        migrations.AddConstraint(
            model_name="devicegroup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rule__isnull", True), ("type", "Static")),
                    models.Q(("rule__isnull", False), ("type", "Dynamic")),
                    _connector="OR",
                ),
                name="a_rule_for_dynamic_groups_alone",
            ),
        ),
    ]
