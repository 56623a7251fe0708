from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0017_watching_until"),
    ]

    operations = [
        migrations.AddField(
            model_name="rollback",
            name="ends_deployment",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="rollback",
            name="finished_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="rollback",
            name="scope",
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name="target",
            name="is_withdrawn",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="taken out by an operator: no evidence, and not tried again",
            ),
        ),
        migrations.AddIndex(
            model_name="rollback",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", True)),
                fields=["deployment"],
                name="rollback_unfinished",
            ),
        ),
        # Those of deployments that are over are over.
        migrations.RunSQL(
            """
            UPDATE deployments_rollback r
            SET finished_at = COALESCE(d.finished_at, r.started_at)
            FROM deployments_deployment d
            WHERE d.id = r.deployment_id AND d.status <> 'RollingBack'
            """,
            migrations.RunSQL.noop,
        ),
    ]
