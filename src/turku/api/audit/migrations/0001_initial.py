"""The tables of the app, as Django generated them."""

from django.db import migrations, models

from turku.api.audit import append_only


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('date', models.DateTimeField(db_index=True)),
                ('action', models.CharField(max_length=64)),
                ('actor_kind', models.CharField(choices=[('machine', 'machine'), ('storage', 'storage'), ('person', 'person'), ('command', 'command line'), ('coordinator', 'coordinator'), ('unknown', 'unknown')], max_length=16, verbose_name='by')),
                ('actor', models.CharField(blank=True, max_length=200, verbose_name='name')),
                ('address', models.GenericIPAddressField(null=True, verbose_name='from')),
                ('subject_kind', models.CharField(blank=True, max_length=32, verbose_name='kind')),
                ('subject_key', models.CharField(blank=True, max_length=200, verbose_name='key')),
                ('subject', models.CharField(blank=True, max_length=200)),
                ('weakens', models.BooleanField(default=False, verbose_name='weakens protection')),
                ('old', models.JSONField(default=dict)),
                ('new', models.JSONField(default=dict)),
            ],
            options={
                'verbose_name_plural': 'audit log',
                'ordering': ('-date', '-id'),
                'indexes': [models.Index(fields=['actor', '-date'], name='audit_actor_date'), models.Index(fields=['actor_kind', '-date', '-id'], name='audit_kind_date'), models.Index(fields=['subject_key', '-date'], name='audit_subject_date'), models.Index(fields=['subject', '-date'], name='audit_name_date'), models.Index(fields=['action', '-date', '-id'], name='audit_action_date'), models.Index(fields=['address', '-date'], name='audit_address_date'), models.Index(condition=models.Q(('weakens', True)), fields=['-date', '-id'], name='audit_weakens_date')],
            },
        ),
        migrations.RunPython(append_only.set_up, append_only.take_down),
    ]
