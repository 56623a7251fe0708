"""Keys of what devices run, by the scheme of their model and by known images."""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

# Its rules are those of `devices.services.version_keys`. Of several versions with the
# same bytes it is the one that the device names, else the newest.
DEVICE_VERSION_KEY = """
CREATE FUNCTION hotswap_device_version_key(its_model uuid, says text, runs text)
RETURNS text LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE AS $$
DECLARE
    key text;
BEGIN
    IF runs <> '' THEN
        SELECT f.precedence INTO key FROM firmware_firmware f
        WHERE f.model_id = its_model AND f.sha256 = runs
          AND f.status <> 'Absent'
        ORDER BY f.version <> says, f.created_at DESC, f.id LIMIT 1;
    END IF;
    IF key IS NULL AND says <> '' THEN
        SELECT hotswap_version_key(m.version_scheme, says) INTO key
        FROM firmware_devicemodel m WHERE m.id = its_model;
    END IF;
    RETURN COALESCE(key, '');
END
$$;
"""
FILL = """
UPDATE devices_device
SET version_key = hotswap_device_version_key(
    model_id, firmware_version, firmware_checksum)
WHERE firmware_version <> '' OR firmware_checksum <> '';
"""


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0012_upserts"),
        ("firmware", "0010_version_schemes"),
    ]

    operations = [
        migrations.RunSQL(
            DEVICE_VERSION_KEY,
            "DROP FUNCTION hotswap_device_version_key(uuid, text, text)",
        ),
        migrations.RemoveIndex(model_name="device", name="device_version"),
        migrations.RemoveField(model_name="device", name="version_key"),
        migrations.RunSQL("DROP FUNCTION hotswap_precedence_key(text)"),
        migrations.AddField(
            model_name="device",
            name="version_key",
            field=models.CharField(
                blank=True,
                db_collation="C",
                db_default="",
                default="",
                editable=False,
                help_text="sorts as what it runs does; made by the database",
                max_length=255,
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
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
            model_name="device",
            index=models.Index(fields=["version_key"], name="device_version"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["firmware_version"], name="device_says_version"),
        ),
    ]
