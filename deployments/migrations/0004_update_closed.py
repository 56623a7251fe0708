from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0003_traces"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="update",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", False)),
                fields=["closed_at"],
                include=("kind", "status"),
                name="update_closed",
            ),
        ),
    ]
