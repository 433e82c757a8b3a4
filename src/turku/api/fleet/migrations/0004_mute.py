"""Machines that an operator muted."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("fleet", "0003_away"),
    ]

    operations = [
        migrations.AddField(
            model_name="machine",
            name="date_muted_until",
            field=models.DateTimeField(
                blank=True,
                db_index=True,
                help_text="Until then it is no problem that the machine is silent, or that its backups fail or are missing.",
                null=True,
                verbose_name="muted until",
            ),
        ),
        migrations.AddField(
            model_name="machine",
            name="mute_reason",
            field=models.CharField(
                blank=True, db_default="", default="", max_length=200, verbose_name="why it is muted"
            ),
        ),
    ]
