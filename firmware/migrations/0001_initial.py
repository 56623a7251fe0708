"""Models, images, keys and approvals, and the keys by which versions sort."""

import uuid
from pathlib import Path

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
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(
            (SQL / "version_key.sql").read_text(),
            "DROP FUNCTION hotswap_version_key(text, text);"
            "DROP FUNCTION hotswap_number_key(text)",
        ),
        migrations.CreateModel(
            name="DeviceModel",
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
                ("name", models.CharField(max_length=64, unique=True)),
                ("description", models.CharField(blank=True, max_length=500)),
                (
                    "requires_secure_boot",
                    models.BooleanField(
                        default=False,
                        help_text="updates go only to devices that report secure boot",
                    ),
                ),
                (
                    "version_scheme",
                    models.CharField(
                        choices=[
                            ("semver", "semver"),
                            ("numeric", "numeric"),
                            ("date", "date"),
                            ("opaque", "opaque"),
                        ],
                        default="semver",
                        help_text="how its versions are written and ordered",
                        max_length=8,
                    ),
                ),
            ],
            options={
                "verbose_name": "device model",
                "ordering": ("name",),
            },
        ),
        migrations.CreateModel(
            name="StorageKey",
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
                ("key_id", models.CharField(max_length=16, unique=True)),
                ("sealed_key", models.BinaryField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("Next", "Next"),
                            ("Active", "Active"),
                            ("Retiring", "Retiring"),
                            ("Retired", "Retired"),
                            ("Revoked", "Revoked"),
                        ],
                        default="Active",
                        max_length=8,
                    ),
                ),
            ],
            options={
                "verbose_name": "storage key",
            },
        ),
        migrations.CreateModel(
            name="WrappedKey",
            fields=[
                (
                    "storage_name",
                    models.CharField(max_length=128, primary_key=True, serialize=False),
                ),
                ("wrapped", models.BinaryField(help_text="nonce, then the sealed key")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="Firmware",
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
                ("version", models.CharField(max_length=64)),
                (
                    "precedence",
                    models.CharField(
                        db_collation="C",
                        default="",
                        help_text="sorts as the version does in the scheme of its model",
                        max_length=255,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("Draft", "Draft"),
                            ("Approved", "Approved"),
                            ("Rejected", "Rejected"),
                            ("Deprecated", "Deprecated"),
                        ],
                        default="Draft",
                        max_length=10,
                    ),
                ),
                ("size", models.PositiveIntegerField(help_text="bytes")),
                ("sha256", models.CharField(max_length=64)),
                (
                    "sha1",
                    models.CharField(
                        blank=True,
                        help_text="for other protocols; never for security",
                        max_length=40,
                    ),
                ),
                (
                    "md5",
                    models.CharField(
                        blank=True,
                        help_text="for other protocols; never for security",
                        max_length=32,
                    ),
                ),
                ("signature", models.TextField(help_text="base64")),
                ("storage_name", models.CharField(max_length=128, unique=True)),
                ("release_notes", models.TextField(blank=True)),
                ("security_version", models.PositiveIntegerField(default=0)),
                ("reboot_required", models.BooleanField(default=True)),
                (
                    "request_comment",
                    models.TextField(
                        blank=True, help_text="what the uploader says to the approver"
                    ),
                ),
                ("approved_at", models.DateTimeField(null=True)),
                ("approved_sha256", models.CharField(blank=True, max_length=64)),
                (
                    "status_comment",
                    models.TextField(
                        blank=True,
                        help_text="why it was approved, rejected or deprecated",
                    ),
                ),
                (
                    "damaged_at",
                    models.DateTimeField(
                        help_text="when the stored image was found to be damaged",
                        null=True,
                    ),
                ),
                ("damage", models.CharField(blank=True, max_length=200)),
                (
                    "signature_revoked_at",
                    models.DateTimeField(
                        help_text="since when no signature of it can be trusted",
                        null=True,
                    ),
                ),
                (
                    "approved_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="approvals",
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
                    "uploaded_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="uploads",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "firmware",
            },
        ),
        migrations.CreateModel(
            name="ApprovalRequest",
            fields=[],
            options={
                "verbose_name": "approval",
                "proxy": True,
                "indexes": [],
                "constraints": [],
            },
            bases=("firmware.firmware",),
        ),
        migrations.CreateModel(
            name="ImageCopy",
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
                ("storage_name", models.CharField(max_length=128)),
                ("place", models.CharField(max_length=64)),
                (
                    "stored_at",
                    models.DateTimeField(
                        help_text="when the bytes there were last known to be right",
                        null=True,
                    ),
                ),
                (
                    "due_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        help_text="when the next try is due, until it is stored",
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("failure", models.CharField(blank=True, max_length=200)),
            ],
            options={
                "verbose_name_plural": "image copies",
                "indexes": [
                    models.Index(
                        condition=models.Q(("stored_at__isnull", True)),
                        fields=["due_at"],
                        name="image_copy_due",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("storage_name", "place"), name="one_copy_a_place"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SigningKey",
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
                ("key_id", models.CharField(max_length=16, unique=True)),
                (
                    "algorithm",
                    models.CharField(default="RSA-PKCS1v15-SHA256", max_length=32),
                ),
                ("public_key", models.TextField(help_text="PEM")),
                (
                    "sealed_private_key",
                    models.BinaryField(help_text="erased when the key signs no more"),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("Next", "Next"),
                            ("Active", "Active"),
                            ("Retiring", "Retiring"),
                            ("Retired", "Retired"),
                            ("Revoked", "Revoked"),
                        ],
                        default="Active",
                        max_length=8,
                    ),
                ),
                (
                    "status_comment",
                    models.TextField(blank=True, help_text="why it was revoked"),
                ),
                ("not_before", models.DateTimeField(default=django.utils.timezone.now)),
                ("not_after", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "signing key",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("status__in", ["Active", "Next"])),
                        fields=("status",),
                        name="one_signing_key_active",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("status", "Retiring"), _negated=True),
                            ("not_after__isnull", False),
                            _connector="OR",
                        ),
                        name="retiring_has_an_end",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Manifest",
            fields=[
                ("sequence", models.BigAutoField(primary_key=True, serialize=False)),
                ("body", models.BinaryField(help_text="canonical JSON")),
                ("signature", models.TextField(help_text="base64")),
                ("issued_at", models.DateTimeField()),
                (
                    "firmware",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.firmware",
                    ),
                ),
                (
                    "key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.signingkey",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ImageSignature",
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
                ("signature", models.TextField(help_text="base64")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "firmware",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="later_signatures",
                        to="firmware.firmware",
                    ),
                ),
                (
                    "key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        to="firmware.signingkey",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="firmware",
            name="key",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, to="firmware.signingkey"
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="signingkey",
            trigger=pgtrigger.compiler.Trigger(
                name="signing_key_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{Next:Active,Next:Retired,Next:Revoked,Active:Retiring,Active:Revoked,Retiring:Retired,Retiring:Revoked,Retired:Revoked}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="d4c4695a6ff8b7f9a1d3bb5784b4de0935e91e3e",
                    operation="UPDATE",
                    pgid="pgtrigger_signing_key_status_moves_bf6d4",
                    table="firmware_signingkey",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="signingkey",
            trigger=pgtrigger.compiler.Trigger(
                name="signing_key_public_half",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN (OLD."key_id" IS DISTINCT FROM (NEW."key_id") OR OLD."algorithm" IS DISTINCT FROM (NEW."algorithm") OR OLD."public_key" IS DISTINCT FROM (NEW."public_key"))',
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update rows from % table', TG_TABLE_NAME;",
                    hash="687aed424146d3f96fd1df05072bfa849579ea81",
                    operation="UPDATE",
                    pgid="pgtrigger_signing_key_public_half_9d888",
                    table="firmware_signingkey",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddConstraint(
            model_name="storagekey",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "Active")),
                fields=("status",),
                name="one_storage_key_active",
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="storagekey",
            trigger=pgtrigger.compiler.Trigger(
                name="storage_key_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{Active:Retiring,Retiring:Retired}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="762448ca98518647f365c3cc2dcdc715c7b6a1f0",
                    operation="UPDATE",
                    pgid="pgtrigger_storage_key_status_moves_33349",
                    table="firmware_storagekey",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="storagekey",
            trigger=pgtrigger.compiler.Trigger(
                name="storage_key_name",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN (OLD."key_id" IS DISTINCT FROM (NEW."key_id"))',
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update rows from % table', TG_TABLE_NAME;",
                    hash="5ac99e523fa251abc4b86b70562386e26401eec2",
                    operation="UPDATE",
                    pgid="pgtrigger_storage_key_name_3b5f5",
                    table="firmware_storagekey",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddField(
            model_name="wrappedkey",
            name="storage_key",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, to="firmware.storagekey"
            ),
        ),
        migrations.AddIndex(
            model_name="manifest",
            index=models.Index(
                fields=["firmware", "-sequence"], name="manifest_newest"
            ),
        ),
        migrations.AddConstraint(
            model_name="imagesignature",
            constraint=models.UniqueConstraint(
                fields=("firmware", "key"), name="one_signature_a_key"
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="imagesignature",
            trigger=pgtrigger.compiler.Trigger(
                name="image_signature_stays",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update or delete rows from % table', TG_TABLE_NAME;",
                    hash="87560d5c3c5557088cb2560f09ed836b291f7c6a",
                    operation="UPDATE OR DELETE",
                    pgid="pgtrigger_image_signature_stays_ef745",
                    table="firmware_imagesignature",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="firmware",
            index=models.Index(fields=["sha256"], name="firmware_sha256"),
        ),
        migrations.AddIndex(
            model_name="firmware",
            index=models.Index(
                fields=["model", "precedence"], name="firmware_precedence"
            ),
        ),
        migrations.AddConstraint(
            model_name="firmware",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "Absent"), _negated=True),
                fields=("model", "version"),
                name="one_firmware_a_version",
            ),
        ),
        migrations.AddConstraint(
            model_name="firmware",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "Absent")),
                fields=("model", "sha256", "version"),
                name="one_absent_image_a_name",
            ),
        ),
        migrations.AddConstraint(
            model_name="firmware",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status", "Absent"), _negated=True),
                    models.Q(("signature", ""), ("size", 0)),
                    _connector="OR",
                ),
                name="absent_image_is_unsigned",
            ),
        ),
        migrations.AddConstraint(
            model_name="firmware",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status__in", ["Approved", "Deprecated"]), _negated=True),
                    ("approved_sha256", models.F("sha256")),
                    _connector="OR",
                ),
                name="approval_binds_checksum",
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="firmware",
            trigger=pgtrigger.compiler.Trigger(
                name="firmware_status_moves",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE _is_valid_transition BOOLEAN;",
                    func='SELECT CONCAT(OLD."status", \':\', NEW."status") = ANY(\'{Draft:Approved,Draft:Rejected,Approved:Deprecated,Deprecated:Approved}\'::text[]) INTO _is_valid_transition; IF (_is_valid_transition IS FALSE AND OLD."status" IS DISTINCT FROM NEW."status") THEN RAISE EXCEPTION \'pgtrigger: Invalid transition of field "status" from "%" to "%" on table %\', OLD."status", NEW."status", TG_TABLE_NAME; ELSE RETURN NEW; END IF;',
                    hash="dd43fe8f96f8212755b3b586b770819902fee669",
                    operation="UPDATE",
                    pgid="pgtrigger_firmware_status_moves_e2818",
                    table="firmware_firmware",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="firmware",
            trigger=pgtrigger.compiler.Trigger(
                name="firmware_signed_fields",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN (OLD."model_id" IS DISTINCT FROM (NEW."model_id") OR OLD."version" IS DISTINCT FROM (NEW."version") OR OLD."precedence" IS DISTINCT FROM (NEW."precedence") OR OLD."size" IS DISTINCT FROM (NEW."size") OR OLD."sha256" IS DISTINCT FROM (NEW."sha256") OR OLD."signature" IS DISTINCT FROM (NEW."signature") OR OLD."key_id" IS DISTINCT FROM (NEW."key_id") OR OLD."security_version" IS DISTINCT FROM (NEW."security_version"))',
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update rows from % table', TG_TABLE_NAME;",
                    hash="af24e4267e062909375ec9c135ac794671e46645",
                    operation="UPDATE",
                    pgid="pgtrigger_firmware_signed_fields_d3cab",
                    table="firmware_firmware",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="firmware",
            trigger=pgtrigger.compiler.Trigger(
                name="firmware_other_digests",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN ((OLD."sha1" > \'\' AND OLD."sha1" IS DISTINCT FROM (NEW."sha1")) OR (OLD."md5" > \'\' AND OLD."md5" IS DISTINCT FROM (NEW."md5")))',
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update rows from % table', TG_TABLE_NAME;",
                    hash="cb997bb0f55e64544deef4d11407567d73f392c1",
                    operation="UPDATE",
                    pgid="pgtrigger_firmware_other_digests_f4af2",
                    table="firmware_firmware",
                    when="BEFORE",
                ),
            ),
        ),
    ]
