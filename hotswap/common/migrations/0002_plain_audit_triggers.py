import pgtrigger.migrations
from django.db import migrations

# pgtrigger's ask a variable of the session first. ALWAYS: replication roles, too.
PLAIN = """
CREATE FUNCTION common_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON common_auditevent
    FOR EACH ROW EXECUTE FUNCTION common_refuse_audit_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON common_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION common_refuse_audit_change();
ALTER TABLE common_auditevent ENABLE ALWAYS TRIGGER audit_append_only;
ALTER TABLE common_auditevent ENABLE ALWAYS TRIGGER audit_no_truncate;
"""
UNDONE = """
DROP TRIGGER audit_append_only ON common_auditevent;
DROP TRIGGER audit_no_truncate ON common_auditevent;
DROP FUNCTION common_refuse_audit_change();
"""


class Migration(migrations.Migration):
    dependencies = [("common", "0001_initial")]

    operations = [
        pgtrigger.migrations.RemoveTrigger("auditevent", "audit_append_only"),
        pgtrigger.migrations.RemoveTrigger("auditevent", "audit_no_truncate"),
        migrations.RunSQL(PLAIN, UNDONE),
    ]
