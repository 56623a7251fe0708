"""Rules of groups, and a key by which versions sort as SemVer 2 says."""

import django.contrib.postgres.indexes
from django.db import migrations, models


class PrecedenceKey(models.Func):
    function = "hotswap_precedence_key"
    output_field = models.TextField(db_collation="C")


# What is no semantic version has the empty key. Migration 0013 takes its place.
VERSION_KEY = r"""
CREATE FUNCTION hotswap_precedence_key(version text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    parts text[];
    part text;
    key text := '';
BEGIN
    IF version = '' OR length(version) > 64 THEN
        RETURN '';
    END IF;
    parts := regexp_match(
        version,
        '^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)'
        '(?:-([0-9A-Za-z.-]+))?(?:[+][0-9A-Za-z-]+(?:[.][0-9A-Za-z-]+)*)?$'
    );
    IF parts IS NULL THEN
        RETURN '';
    END IF;
    FOR i IN 1..3 LOOP
        key := key || lpad(length(parts[i])::text, 2, '0') || parts[i];
    END LOOP;
    IF parts[4] IS NULL THEN
        RETURN key || '~';
    END IF;
    FOREACH part IN ARRAY string_to_array(parts[4], '.') LOOP
        IF part ~ '^(0|[1-9][0-9]*)$' THEN
            key := key || '0' || lpad(length(part)::text, 2, '0') || part;
        ELSIF part ~ '^[0-9]*$' THEN
            RETURN '';
        ELSE
            key := key || '1' || part || '!';
        END IF;
    END LOOP;
    RETURN key || '!';
END
$$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0004_key_alarms"),
    ]

    operations = [
        migrations.RunSQL(VERSION_KEY, "DROP FUNCTION hotswap_precedence_key(text)"),
        migrations.AddField(
            model_name="device",
            name="version_key",
            field=models.GeneratedField(
                db_persist=True,
                expression=PrecedenceKey("firmware_version"),
                output_field=models.TextField(db_collation="C"),
            ),
        ),
        migrations.AddField(
            model_name="devicegroup",
            name="rule",
            field=models.JSONField(null=True),
        ),
        migrations.AlterField(
            model_name="devicegroup",
            name="type",
            field=models.CharField(
                choices=[("Static", "Static"), ("Dynamic", "Dynamic")],
                default="Static",
                max_length=8,
            ),
        ),
        migrations.AddIndex(
            model_name="device",
            index=models.Index(fields=["version_key"], name="device_version"),
        ),
        migrations.AddIndex(
            model_name="device",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["tags"], name="device_tags", opclasses=["jsonb_path_ops"]
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
