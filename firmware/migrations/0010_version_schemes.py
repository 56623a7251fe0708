"""Version schemes, and the key by which versions sort in the database."""

from django.db import migrations, models

# The same keys as `firmware.versions.version_key`, which says how they are made; the
# tests hold one against the other. What is no version of the scheme has the empty key.
VERSION_KEY = r"""
CREATE FUNCTION hotswap_number_key(digits text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT lpad(length(number)::text, 2, '0') || number
    FROM (SELECT COALESCE(NULLIF(ltrim(digits, '0'), ''), '0') AS number) AS one
$$;

CREATE FUNCTION hotswap_version_key(scheme text, version text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    parts text[];
    part text;
    key text;
    days int;
BEGIN
    IF version = '' OR length(version) > 64 THEN
        RETURN '';
    END IF;
    IF scheme = 'semver' THEN
        parts := regexp_match(
            version,
            '^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)'
            '(?:-([0-9A-Za-z.-]+))?(?:[+][0-9A-Za-z-]+(?:[.][0-9A-Za-z-]+)*)?$'
        );
        IF parts IS NULL THEN
            RETURN '';
        END IF;
        key := 's';
        FOR i IN 1..3 LOOP
            key := key || hotswap_number_key(parts[i]);
        END LOOP;
        IF parts[4] IS NULL THEN
            RETURN key || '~';
        END IF;
        FOREACH part IN ARRAY string_to_array(parts[4], '.') LOOP
            IF part ~ '^(0|[1-9][0-9]*)$' THEN
                key := key || '0' || hotswap_number_key(part);
            ELSIF part ~ '^[0-9]*$' THEN
                RETURN '';
            ELSE
                key := key || '1' || part || '!';
            END IF;
        END LOOP;
        RETURN key || '!';
    ELSIF scheme = 'numeric' THEN
        IF version !~ '^[vV]?[0-9]+([.][0-9]+)*$' THEN
            RETURN '';
        END IF;
        key := 'n';
        FOREACH part IN ARRAY string_to_array(
            regexp_replace(ltrim(version, 'vV'), '([.]0+)+$', ''), '.'
        ) LOOP
            key := key || hotswap_number_key(part);
        END LOOP;
        RETURN CASE WHEN key = 'n010' THEN 'n' ELSE key END;
    ELSIF scheme = 'date' THEN
        parts := regexp_match(
            version, '^([0-9]{4})([.-]?)([0-9]{2})\2([0-9]{2})(?:[.-]([0-9]+))?$'
        );
        IF parts IS NULL OR parts[1] = '0000' OR parts[3] NOT BETWEEN '01' AND '12' THEN
            RETURN '';
        END IF;
        days := extract(day FROM make_date(parts[1]::int, parts[3]::int, 1)
                        + interval '1 month' - interval '1 day');
        IF parts[4]::int NOT BETWEEN 1 AND days THEN
            RETURN '';
        END IF;
        RETURN 'd' || parts[1] || parts[3] || parts[4]
            || hotswap_number_key(COALESCE(parts[5], '0'));
    END IF;
    RETURN '';
END
$$;
"""
DROP = """
DROP FUNCTION hotswap_version_key(text, text);
DROP FUNCTION hotswap_number_key(text);
"""
# What was signed is read-only; its keys get the letter of their scheme once.
PUT_LETTERS = """
ALTER TABLE firmware_firmware DISABLE TRIGGER pgtrigger_firmware_signed_fields_d3cab;
UPDATE firmware_firmware SET precedence = hotswap_version_key('semver', version)
WHERE status <> 'Absent';
ALTER TABLE firmware_firmware ENABLE TRIGGER pgtrigger_firmware_signed_fields_d3cab;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("firmware", "0009_reinstated_firmware"),
    ]

    operations = [
        migrations.RunSQL(VERSION_KEY, DROP),
        migrations.RunSQL(PUT_LETTERS, migrations.RunSQL.noop),
        migrations.AddField(
            model_name="devicemodel",
            name="version_scheme",
            field=models.CharField(
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
        migrations.AlterField(
            model_name="firmware",
            name="precedence",
            field=models.CharField(
                db_collation="C",
                default="",
                help_text="sorts as the version does in the scheme of its model",
                max_length=255,
            ),
        ),
    ]
