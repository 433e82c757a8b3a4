"""Files whose content is right, and whose extended attributes or ACLs are not."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("integrity", "0001_initial"),
    ]

    operations = [
        migrations.AlterField(
            model_name="damage",
            name="kind",
            field=models.CharField(
                choices=[
                    ("content", "content is not what was written"),
                    ("missing", "is gone"),
                    ("unreadable", "cannot be read"),
                    ("source", "differs from the machine's, size and time alike"),
                    ("attributes", "has other extended attributes or ACLs"),
                ],
                max_length=16,
                verbose_name="what is wrong",
            ),
        ),
    ]
