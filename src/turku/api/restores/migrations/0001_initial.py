"""The tables of the app, as Django generated them."""

import uuid

import django.db.models.deletion
import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('backups', '0001_initial'),
        ('fleet', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='RestorePolicy',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('history_visible', models.BooleanField(blank=True, help_text='If not, the machine gets its history only through a restore request.', null=True, verbose_name='machine may read its own history')),
                ('approvals', models.PositiveSmallIntegerField(blank=True, choices=[(0, 'nobody'), (1, 'one operator'), (2, 'two operators')], help_text='If a request concerns two machines, the stricter value counts.', null=True, verbose_name='requests are approved by')),
                ('other_machines', models.BooleanField(blank=True, help_text='Allows restores onto other machines that are registered with the same Auth. A superuser may choose any machine.', null=True, verbose_name='onto other machines')),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('auth', models.OneToOneField(blank=True, help_text='For the machines registered with it.', limit_choices_to={'kind': 'machine_reg'}, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(class)s', to='fleet.auth')),
                ('machine', models.OneToOneField(blank=True, help_text='For this machine alone.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(class)s', to='fleet.machine')),
            ],
            options={
                'verbose_name_plural': 'restore policies',
                'ordering': ('machine_id', 'auth_id'),
                'abstract': False,
                'constraints': [models.CheckConstraint(condition=models.Q(('auth', None), ('machine', None), _connector='OR'), name='restorepolicy_scope', violation_error_message='A policy is for one auth or for one machine, not both.'), models.UniqueConstraint(django.db.models.functions.comparison.Coalesce('auth_id', 0), django.db.models.functions.comparison.Coalesce('machine_id', 0), name='restorepolicy_scope_unique', violation_error_message='A policy for these machines already exists.')],
            },
        ),
        migrations.CreateModel(
            name='RestoreRequest',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('snapshot', models.CharField(blank=True, max_length=200)),
                ('moment', models.CharField(blank=True, max_length=200, verbose_name='as of')),
                ('resolved_snapshot', models.CharField(blank=True, editable=False, max_length=200, verbose_name='resolved snapshot')),
                ('paths', models.JSONField(blank=True, default=list)),
                ('directory', models.CharField(max_length=4096)),
                ('overwrite', models.CharField(choices=[('never', 'keep existing files'), ('older', 'replace older files'), ('always', 'replace files that differ')], default='never', max_length=8, verbose_name='existing files')),
                ('reason', models.CharField(max_length=1000)),
                ('state', models.CharField(choices=[('requested', 'waits for approval'), ('waiting', 'waits for the machine'), ('picked_up', 'picked up'), ('running', 'running'), ('done', 'done'), ('partial', 'done in part'), ('failed', 'failed'), ('refused', 'refused by the machine'), ('rejected', 'rejected'), ('cancelled', 'cancelled'), ('expired', 'expired')], default='requested', editable=False, max_length=16)),
                ('approvals_needed', models.PositiveSmallIntegerField(choices=[(0, 'nobody'), (1, 'one operator'), (2, 'two operators')], editable=False)),
                ('requested_by', models.CharField(editable=False, max_length=200)),
                ('date_requested', models.DateTimeField(editable=False, verbose_name='requested')),
                ('first_approval_by', models.CharField(blank=True, editable=False, max_length=200)),
                ('date_first_approval', models.DateTimeField(blank=True, editable=False, null=True)),
                ('second_approval_by', models.CharField(blank=True, editable=False, max_length=200)),
                ('date_second_approval', models.DateTimeField(blank=True, editable=False, null=True)),
                ('date_approved', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='approved')),
                ('ended_by', models.CharField(blank=True, editable=False, max_length=200, verbose_name='rejected or cancelled by')),
                ('date_expires', models.DateTimeField(editable=False, verbose_name='expires')),
                ('date_ended', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='ended')),
                ('date_offered', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='offered from')),
                ('claim', models.CharField(blank=True, editable=False, max_length=64)),
                ('attempts', models.PositiveIntegerField(default=0, editable=False, verbose_name='times picked up')),
                ('date_picked_up', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='picked up')),
                ('date_progress', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='last progress report')),
                ('files', models.PositiveBigIntegerField(default=0, editable=False, verbose_name='files restored')),
                ('size_bytes', models.PositiveBigIntegerField(default=0, editable=False, verbose_name='bytes restored')),
                ('files_total', models.PositiveBigIntegerField(blank=True, editable=False, null=True, verbose_name='files in total')),
                ('size_total_bytes', models.PositiveBigIntegerField(blank=True, editable=False, null=True, verbose_name='bytes in total')),
                ('restored_snapshot', models.CharField(blank=True, editable=False, max_length=200)),
                ('message', models.TextField(blank=True, editable=False, verbose_name='message of the machine')),
                ('source', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='restore_requests', to='backups.source')),
                ('target', models.ForeignKey(help_text='The machine that receives the files: their own, or another one of the same operator.', on_delete=django.db.models.deletion.CASCADE, related_name='restore_requests', to='fleet.machine', verbose_name='onto machine')),
            ],
            options={
                'ordering': ('-date_requested', '-id'),
                'permissions': (('approve_restorerequest', 'Can approve and reject restore requests'),),
                'indexes': [models.Index(condition=models.Q(('date_offered__isnull', False)), fields=['target', 'date_offered'], name='rr_offered'), models.Index(condition=models.Q(('state__in', ('requested', 'waiting', 'picked_up', 'running'))), fields=['source'], name='rr_open_source'), models.Index(condition=models.Q(('state__in', ('requested', 'waiting', 'picked_up', 'running'))), fields=['date_expires'], name='rr_open_expires'), models.Index(fields=['-date_requested', '-id'], name='rr_date'), models.Index(fields=['state', '-date_requested', '-id'], name='rr_state_date')],
            },
        ),
    ]
