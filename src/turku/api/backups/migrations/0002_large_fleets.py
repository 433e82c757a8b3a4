"""What the lists of the admin site search and sort by."""

import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("backups", "0001_initial"),
        ("fleet", "0002_large_fleets"),
    ]

    operations = [
        migrations.AddField(
            model_name="source",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=django.db.models.functions.text.Lower(
                    django.db.models.functions.text.Concat(
                        "name",
                        models.Value(" "),
                        "path",
                        models.Value(" "),
                        "comment",
                        models.Value(" "),
                        output_field=models.TextField(),
                    )
                ),
                output_field=models.TextField(),
            ),
        ),
        migrations.AddIndex(
            model_name="backuprun",
            index=models.Index(fields=["storage", "-date", "-id"], name="run_storage_date"),
        ),
        migrations.AddIndex(
            model_name="backuprun",
            index=models.Index(condition=models.Q(("success", False)), fields=["-date", "-id"], name="run_failed_date"),
        ),
        migrations.AddIndex(
            model_name="backuprun",
            index=models.Index(fields=["snapshot"], name="run_snapshot"),
        ),
        migrations.AddIndex(
            model_name="source",
            index=models.Index(condition=models.Q(("success", False)), fields=["machine"], name="source_failed"),
        ),
        migrations.AddIndex(
            model_name="source",
            index=models.Index(condition=models.Q(("suspicious", True)), fields=["machine"], name="source_suspicious"),
        ),
    ]
