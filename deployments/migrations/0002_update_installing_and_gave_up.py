from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="update",
            name="installing_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="update",
            name="gave_up_at",
            field=models.DateTimeField(
                help_text="when the device itself said that it failed", null=True
            ),
        ),
    ]
