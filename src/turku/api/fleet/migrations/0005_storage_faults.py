"""What a storage says is wrong with it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("fleet", "0004_mute"),
    ]

    operations = [
        migrations.AddField(
            model_name="storage",
            name="faults",
            field=models.JSONField(default=list, editable=False, help_text="What the storage says is wrong with it."),
        ),
    ]
