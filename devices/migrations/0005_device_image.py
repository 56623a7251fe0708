"""Who runs an image, counted from an index alone."""

from django.contrib.postgres.operations import (
    AddIndexConcurrently,
    RemoveIndexConcurrently,
)
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("devices", "0004_certificate_expiry"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="device",
            index=models.Index(
                fields=["firmware_checksum", "model", "erased_at"], name="device_image"
            ),
        ),
        RemoveIndexConcurrently(model_name="device", name="device_firmware"),
    ]
