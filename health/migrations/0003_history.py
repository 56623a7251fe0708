"""The history of heartbeats: one partition a day (UTC), and one for all other days.

Django's state knows an ordinary table, so that it is emptied with the others; the
partitions are plain SQL, as Django has no words for them.
"""

from typing import Any

from django.db import migrations, models

TABLE = """
    CREATE TABLE health_reading (
        device_id uuid NOT NULL,
        at timestamptz NOT NULL,
        cpu_percent double precision NOT NULL,
        memory_percent double precision NOT NULL,
        error_ratio double precision,
        uptime_seconds bigint NOT NULL,
        firmware_version varchar(64) NOT NULL,
        is_first_of_boot boolean NOT NULL,
        application_metrics jsonb,
        PRIMARY KEY (device_id, at)
    ) PARTITION BY RANGE (at);
    CREATE TABLE health_reading_default PARTITION OF health_reading DEFAULT;
"""
# The first week, so that nothing has to move when the periodic work begins.
FIRST_WEEK = """
    DO $$
    DECLARE
        today date := (now() AT TIME ZONE 'UTC')::date;
        day date;
    BEGIN
        FOR number IN 0..7 LOOP
            day := today + number;
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF health_reading '
                'FOR VALUES FROM (%L) TO (%L)',
                'health_reading_' || to_char(day, 'YYYYMMDD'),
                to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
                to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00'
            );
        END LOOP;
    END $$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("health", "0002_baseline"),
    ]

    operations: list[Any] = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(TABLE, "DROP TABLE health_reading"),
                migrations.RunSQL(FIRST_WEEK, migrations.RunSQL.noop),
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
                        ("cpu_percent", models.FloatField()),
                        ("memory_percent", models.FloatField()),
                        ("error_ratio", models.FloatField(null=True)),
                        ("uptime_seconds", models.BigIntegerField()),
                        ("firmware_version", models.CharField(max_length=64)),
                        ("is_first_of_boot", models.BooleanField()),
                        ("application_metrics", models.JSONField(null=True)),
                    ],
                )
            ],
        )
    ]
