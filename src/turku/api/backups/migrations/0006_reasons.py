"""Why a source failed, is suspicious or is incomplete, and what runs could not read."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("backups", "0005_expected_backups"),
        ("fleet", "0004_mute"),
    ]

    operations = [
        migrations.AddField(
            model_name="backuprun",
            name="missing_files",
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name="files missing"),
        ),
        migrations.AddField(
            model_name="backuprun",
            name="stale_files",
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name="files stale"),
        ),
        migrations.AddField(
            model_name="backuprun",
            name="warning_count",
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name="warnings"),
        ),
        migrations.AddField(
            model_name="backuprun",
            name="warnings",
            field=models.JSONField(blank=True, default=list, verbose_name="first warnings"),
        ),
        migrations.AddField(
            model_name="source",
            name="date_incomplete_since",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="incomplete since"),
        ),
        migrations.AddField(
            model_name="source",
            name="failure_reason",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                max_length=300,
                verbose_name="reason of the last failure",
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="incomplete_reasons",
            field=models.JSONField(blank=True, default=list, editable=False, verbose_name="reasons of incompleteness"),
        ),
        migrations.AddField(
            model_name="source",
            name="missing_files",
            field=models.PositiveBigIntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="They could not be read, and never were.",
                verbose_name="files missing",
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="stale_files",
            field=models.PositiveBigIntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="They could not be read, and are kept as they were at their last good backup.",
                verbose_name="files stale",
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="suspicious_signs",
            field=models.JSONField(blank=True, default=list, editable=False, verbose_name="reasons of suspicion"),
        ),
        migrations.AddIndex(
            model_name="source",
            index=models.Index(
                condition=models.Q(("date_incomplete_since__isnull", False)),
                fields=["machine"],
                name="source_incomplete",
            ),
        ),
    ]
