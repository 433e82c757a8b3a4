"""Snapshot modes of storages whose file systems share blocks."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("backups", "0002_large_fleets")]

    operations = [
        migrations.AlterField(
            model_name="source",
            name="snapshot_mode",
            field=models.CharField(
                blank=True,
                choices=[
                    ("link-dest", "link-dest"),
                    ("none", "none"),
                    ("btrfs", "btrfs"),
                    ("reflink", "reflink"),
                    ("auto", "auto"),
                ],
                max_length=16,
            ),
        ),
    ]
