"""How long machines may be away."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("fleet", "0002_large_fleets"),
    ]

    operations = [
        migrations.AddField(
            model_name="policy",
            name="away_hours",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Hours that a machine may be away before it counts as silent: 1 suits servers, and counts where no policy says otherwise; 336, which is 14 days, suits laptops.",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(8784),
                ],
                verbose_name="may be away",
            ),
        ),
    ]
