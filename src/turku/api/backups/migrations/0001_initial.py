"""The first tables."""

import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("fleet", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Source",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("path", models.TextField()),
                ("comment", models.CharField(blank=True, max_length=200)),
                ("frequency", models.CharField(default="daily", max_length=1000)),
                ("retention", models.CharField(default="last 5 days, earliest of month", max_length=1000)),
                (
                    "bwlimit",
                    models.PositiveBigIntegerField(
                        blank=True, help_text="KiB/s", null=True, verbose_name="bandwidth limit"
                    ),
                ),
                (
                    "snapshot_mode",
                    models.CharField(blank=True, choices=[("link-dest", "link-dest"), ("none", "none")], max_length=16),
                ),
                ("filter", models.JSONField(blank=True, default=list)),
                ("exclude", models.JSONField(blank=True, default=list)),
                ("preserve_hard_links", models.BooleanField(default=False)),
                ("shared_service", models.BooleanField(default=False)),
                ("large_rotating_files", models.BooleanField(default=False)),
                ("large_modifying_files", models.BooleanField(default=False)),
                (
                    "other_options",
                    models.JSONField(blank=True, default=dict, help_text="Options that are kept as they were sent."),
                ),
                ("active", models.BooleanField(default=True, help_text="The operator's switch.")),
                ("published", models.BooleanField(default=True, help_text="Does the machine's configuration name it?")),
                ("date_added", models.DateTimeField(db_index=True, editable=False)),
                (
                    "date_last_backed_up",
                    models.DateTimeField(
                        blank=True, db_index=True, editable=False, null=True, verbose_name="last good backup"
                    ),
                ),
                ("date_next_backup", models.DateTimeField(db_index=True, verbose_name="next backup")),
                (
                    "success",
                    models.BooleanField(blank=True, editable=False, null=True, verbose_name="last run succeeded"),
                ),
                (
                    "suspicious",
                    models.BooleanField(
                        default=False,
                        editable=False,
                        help_text="Its storage keeps it apart until judged.",
                        verbose_name="last backup suspicious",
                    ),
                ),
                (
                    "failure_count",
                    models.PositiveIntegerField(default=0, editable=False, verbose_name="failures in a row"),
                ),
                (
                    "machine",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="sources", to="fleet.machine"
                    ),
                ),
            ],
            options={
                "ordering": ("machine_id", "name"),
            },
        ),
        migrations.CreateModel(
            name="BackupRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("date", models.DateTimeField(db_index=True, verbose_name="reported")),
                ("success", models.BooleanField()),
                ("snapshot", models.CharField(blank=True, max_length=200)),
                ("summary", models.TextField(blank=True)),
                ("date_begin", models.DateTimeField(blank=True, null=True, verbose_name="begun")),
                ("date_end", models.DateTimeField(blank=True, null=True, verbose_name="ended")),
                (
                    "storage",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="runs", to="fleet.storage"
                    ),
                ),
                (
                    "source",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="runs", to="backups.source"
                    ),
                ),
            ],
            options={
                "ordering": ("-date", "-id"),
            },
        ),
        migrations.CreateModel(
            name="SourceChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("date", models.DateTimeField(db_index=True, verbose_name="changed")),
                (
                    "date_effective",
                    models.DateTimeField(
                        blank=True,
                        db_index=True,
                        help_text="Empty: when an operator lets it.",
                        null=True,
                        verbose_name="takes effect",
                    ),
                ),
                ("weakenings", models.JSONField(default=list)),
                ("old", models.JSONField(default=dict)),
                ("new", models.JSONField(default=dict)),
                (
                    "source",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="weakenings", to="backups.source"
                    ),
                ),
            ],
            options={
                "verbose_name": "weakening change",
                "ordering": ("-date", "-id"),
            },
        ),
        migrations.AddConstraint(
            model_name="source",
            constraint=models.UniqueConstraint(fields=("machine", "name"), name="source_name_unique"),
        ),
        migrations.AddIndex(
            model_name="backuprun",
            index=models.Index(fields=["source", "-date"], name="run_source_date"),
        ),
    ]
