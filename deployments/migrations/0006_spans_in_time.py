"""Phases are exported while their order is open, and ticks from rows."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0005_launch_template"),
    ]

    operations = [
        migrations.AddField(
            model_name="update",
            name="traced_sequence",
            field=models.BigIntegerField(
                db_default=0,
                help_text="the phases that were over by this report have been exported",
            ),
        ),
        migrations.CreateModel(
            name="TickTrace",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("began_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField()),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40), size=None
                    ),
                ),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="deployments.deployment",
                    ),
                ),
            ],
        ),
    ]
