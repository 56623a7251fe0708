from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("common", "0001_initial")]

    operations = [
        migrations.AlterField(
            model_name="clock",
            name="restarted_at",
            field=models.DateTimeField(
                help_text="since when the job has run without a gap"
            ),
        ),
    ]
