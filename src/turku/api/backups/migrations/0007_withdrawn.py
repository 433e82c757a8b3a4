"""Sources that were backed up and that their machine declares no more."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("backups", "0006_reasons"),
        ("fleet", "0004_mute"),
    ]

    operations = [
        migrations.AddField(
            model_name="source",
            name="date_withdrawn",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="When the machine stopped declaring it although it was backed up; empty once somebody confirmed it.",
                null=True,
                verbose_name="withdrawn",
            ),
        ),
        migrations.AddIndex(
            model_name="source",
            index=models.Index(
                condition=models.Q(("date_withdrawn__isnull", False)), fields=["machine"], name="source_withdrawn"
            ),
        ),
    ]
