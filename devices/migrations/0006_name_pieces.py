"""Parts of names, found from an index."""

from pathlib import Path

import django.contrib.postgres.indexes
import django.contrib.postgres.search
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("devices", "0005_device_image"),
    ]

    operations = [
        migrations.RunSQL(
            (SQL / "name_pieces.sql").read_text(),
            "DROP FUNCTION hotswap_name_pieces(text)",
        ),
        AddIndexConcurrently(
            model_name="device",
            index=django.contrib.postgres.indexes.GinIndex(
                models.Func(
                    "device_id",
                    function="hotswap_name_pieces",
                    output_field=django.contrib.postgres.search.SearchVectorField(),
                ),
                name="device_name_pieces",
            ),
        ),
    ]
