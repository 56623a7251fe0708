"""The few devices that are revoked, which counts of the fleet leave out."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("devices", "0006_name_pieces"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="device",
            index=models.Index(
                condition=models.Q(("revoked_at__isnull", False)),
                fields=["revoked_at"],
                name="device_revoked",
            ),
        ),
    ]
