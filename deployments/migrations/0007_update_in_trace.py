"""The open orders of the sample, which are looked at every five seconds."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("deployments", "0006_spans_in_time"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="update",
            index=models.Index(
                condition=models.Q(closed_at__isnull=True, traceparent__endswith="-01"),
                fields=["offered_at"],
                name="update_in_trace",
            ),
        ),
    ]
