"""When the schedule has the next backup of a source, and how far ahead that can lie."""

from typing import Any

from django.db import migrations, models


def _fill(apps: Any, _schema_editor: Any) -> None:
    from turku.api.backups.next_backup import longest_pause_days

    rows = apps.get_model("backups", "Source").objects
    rows.update(date_expected=models.F("date_next_backup"))
    for frequency in list(rows.order_by().values_list("frequency", flat=True).distinct()):
        rows.filter(frequency=frequency).update(longest_pause_days=longest_pause_days(frequency))


class Migration(migrations.Migration):
    dependencies = [
        ("backups", "0004_strategies"),
    ]

    operations = [
        migrations.AddField(
            model_name="source",
            name="date_expected",
            field=models.DateTimeField(
                blank=True,
                db_index=True,
                editable=False,
                help_text="Reckoned from the last good backup; no order to back up now and no failure changes it.",
                null=True,
                verbose_name="next backup by the schedule",
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="longest_pause_days",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.RunPython(_fill, migrations.RunPython.noop),
    ]
