"""What the lists of the admin site search, and a table made for frequent check-ins."""

import django.db.models.functions.text
from django.db import migrations, models


def leave_room(_apps, schema_editor):
    """Leave room in the pages of PostgreSQL's table, so that a check-in changes its row where it lies."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE fleet_machine SET (fillfactor = 80)")


class Migration(migrations.Migration):
    dependencies = [
        ("fleet", "0001_initial"),
    ]

    operations = [
        migrations.RunPython(leave_room, migrations.RunPython.noop),
        migrations.AddField(
            model_name="machine",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=django.db.models.functions.text.Lower(
                    django.db.models.functions.text.Concat(
                        "environment_name",
                        models.Value(" "),
                        "service_name",
                        models.Value(" "),
                        "unit_name",
                        models.Value(" "),
                        "comment",
                        models.Value(" "),
                        output_field=models.TextField(),
                    )
                ),
                output_field=models.TextField(),
            ),
        ),
        migrations.AlterField(
            model_name="machine",
            name="date_checked_in",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AlterField(
            model_name="machine",
            name="secret_hash",
            field=models.CharField(editable=False, max_length=128),
        ),
        migrations.AddIndex(
            model_name="machine",
            index=models.Index(fields=["unit_name"], name="machine_unit"),
        ),
    ]
