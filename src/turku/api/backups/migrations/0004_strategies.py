"""How each snapshot was made, and which sources are backed up in full each time."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("backups", "0003_snapshot_modes"),
        ("fleet", "0002_large_fleets"),
    ]

    operations = [
        migrations.AddField(
            model_name="backuprun",
            name="strategy",
            field=models.CharField(
                blank=True,
                choices=[
                    ("unchanged", "unchanged"),
                    ("incremental", "incremental"),
                    ("full", "full"),
                    ("in-place", "in place"),
                ],
                db_default="",
                default="",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="backuprun",
            name="strategy_reason",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Why all of it was transferred although there was a snapshot to build upon.",
                max_length=1000,
                verbose_name="reason",
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="fallback_count",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="Good runs that transferred all of it although there was a snapshot to build upon.",
                verbose_name="full runs in a row",
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="fallback_reason",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                max_length=1000,
                verbose_name="reason of the last full run",
            ),
        ),
        migrations.AddIndex(
            model_name="source",
            index=models.Index(
                condition=models.Q(("fallback_count__gte", 3)), fields=["machine"], name="source_falling_back"
            ),
        ),
    ]
