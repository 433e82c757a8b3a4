"""Indexes for the lists of the admin site."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0001_initial"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="auditentry",
            name="audit_actor_date",
        ),
        migrations.RemoveIndex(
            model_name="auditentry",
            name="audit_subject_date",
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["actor", "-date"], name="audit_actor_date"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["actor_kind", "-date", "-id"], name="audit_kind_date"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["subject_key", "-date"], name="audit_subject_date"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["subject", "-date"], name="audit_name_date"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["action", "-date", "-id"], name="audit_action_date"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["address", "-date"], name="audit_address_date"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(
                condition=models.Q(("weakens", True)), fields=["-date", "-id"], name="audit_weakens_date"
            ),
        ),
    ]
