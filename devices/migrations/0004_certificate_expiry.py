"""Certificates by their end; those that nobody was notified of apart."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("devices", "0003_told"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="devicecertificate",
            index=models.Index(fields=["not_after"], name="device_certificate_expiry"),
        ),
        AddIndexConcurrently(
            model_name="devicecertificate",
            index=models.Index(
                condition=models.Q(("expiry_told_at__isnull", True)),
                fields=["not_after"],
                name="certificate_untold_expiry",
            ),
        ),
    ]
