"""The one snapshot that a request is for, once it was used."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("restores", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="restorerequest",
            name="resolved_snapshot",
            field=models.CharField(blank=True, default="", editable=False, max_length=200, verbose_name="which is"),
            preserve_default=False,
        ),
    ]
