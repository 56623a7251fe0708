from django.db import migrations, models

# For each statement that adds rows: a copy of many costs one more insert.
CHAIN = """
CREATE FUNCTION common_queue_audit_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO common_auditpending (event_id) SELECT id FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_queue_seal AFTER INSERT ON common_auditevent
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION common_queue_audit_seal();
ALTER TABLE common_auditevent ENABLE ALWAYS TRIGGER audit_queue_seal;

CREATE TRIGGER seal_append_only BEFORE UPDATE OR DELETE ON common_auditseal
    FOR EACH ROW EXECUTE FUNCTION common_refuse_audit_change();
CREATE TRIGGER seal_no_truncate BEFORE TRUNCATE ON common_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION common_refuse_audit_change();
ALTER TABLE common_auditseal ENABLE ALWAYS TRIGGER seal_append_only;
ALTER TABLE common_auditseal ENABLE ALWAYS TRIGGER seal_no_truncate;

CREATE TRIGGER anchor_append_only BEFORE UPDATE OR DELETE ON common_auditanchor
    FOR EACH ROW EXECUTE FUNCTION common_refuse_audit_change();
CREATE TRIGGER anchor_no_truncate BEFORE TRUNCATE ON common_auditanchor
    FOR EACH STATEMENT EXECUTE FUNCTION common_refuse_audit_change();
ALTER TABLE common_auditanchor ENABLE ALWAYS TRIGGER anchor_append_only;
ALTER TABLE common_auditanchor ENABLE ALWAYS TRIGGER anchor_no_truncate;

INSERT INTO common_auditpending (event_id) SELECT id FROM common_auditevent;
"""
UNDONE = """
DROP TRIGGER anchor_append_only ON common_auditanchor;
DROP TRIGGER anchor_no_truncate ON common_auditanchor;
DROP TRIGGER seal_append_only ON common_auditseal;
DROP TRIGGER seal_no_truncate ON common_auditseal;
DROP TRIGGER audit_queue_seal ON common_auditevent;
DROP FUNCTION common_queue_audit_seal();
"""


class Migration(migrations.Migration):
    dependencies = [("common", "0007_erased_people")]

    operations = [
        migrations.CreateModel(
            name="AuditPending",
            fields=[
                ("event_id", models.BigIntegerField(primary_key=True, serialize=False)),
            ],
        ),
        migrations.CreateModel(
            name="AuditSeal",
            fields=[
                (
                    "position",
                    models.BigIntegerField(
                        help_text="from 1, without gaps",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("event_id", models.BigIntegerField(unique=True)),
                ("content_hash", models.BinaryField(max_length=32)),
                ("chain_hash", models.BinaryField(max_length=32)),
                ("sealed_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="AuditAnchor",
            fields=[
                ("position", models.BigIntegerField(primary_key=True, serialize=False)),
                ("chain_hash", models.BinaryField(max_length=32)),
                ("at", models.DateTimeField()),
                ("signature", models.BinaryField(max_length=64)),
            ],
        ),
        migrations.RunSQL(CHAIN, UNDONE),
    ]
