import uuid

from django.db import migrations, models

# The default of a new column is one value for all rows.
EACH_ITS_OWN = """
UPDATE common_user SET name_salt = gen_random_uuid() WHERE erased_at IS NULL;
UPDATE common_user SET name_salt = NULL WHERE erased_at IS NOT NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("common", "0010_password_age")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="name_salt",
            field=models.UUIDField(
                default=uuid.uuid4,
                editable=False,
                help_text="of the name within signatures; destroyed with the name",
                null=True,
            ),
        ),
        migrations.RunSQL(EACH_ITS_OWN, migrations.RunSQL.noop),
    ]
