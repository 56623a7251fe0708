"""Functions that make and drop partitions of the history, for callers without tables."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("health", "0001_initial")]

    operations = [
        migrations.RunSQL(
            (SQL / "partition_functions.sql").read_text(),
            "DROP FUNCTION health_create_reading_partition(date);"
            "DROP FUNCTION health_drop_reading_partition(date)",
        ),
    ]
