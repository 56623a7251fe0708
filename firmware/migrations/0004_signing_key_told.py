"""When people were told that a signing key ends soon."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("firmware", "0003_removed_images"),
    ]

    operations = [
        migrations.AddField(
            model_name="signingkey",
            name="expiry_told_at",
            field=models.DateTimeField(
                help_text="when people were told that its end is near", null=True
            ),
        ),
    ]
