from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("common", "0011_name_salts")]

    operations = [migrations.RenameModel("Clock", "JobRun")]
