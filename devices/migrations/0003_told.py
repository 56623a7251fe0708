"""When people were notified of an enrolment that waits, or a certificate that ends."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0002_saved_filter"),
    ]

    operations = [
        migrations.AddField(
            model_name="devicecertificate",
            name="expiry_told_at",
            field=models.DateTimeField(
                help_text="when it was about to expire, which was told unless another "
                "followed",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="enrolmentrequest",
            name="told_at",
            field=models.DateTimeField(
                help_text="when administrators were notified that it waits", null=True
            ),
        ),
    ]
