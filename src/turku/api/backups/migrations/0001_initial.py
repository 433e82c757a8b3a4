"""The tables of the app, as Django generated them."""

import uuid

import django.db.models.deletion
import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('fleet', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Source',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
                ('path', models.TextField()),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('frequency', models.CharField(default='daily', max_length=1000)),
                ('retention', models.CharField(default='last 5 days, earliest of month', max_length=1000)),
                ('bwlimit', models.PositiveBigIntegerField(blank=True, help_text='KiB/s', null=True, verbose_name='bandwidth limit')),
                ('snapshot_mode', models.CharField(blank=True, choices=[('link-dest', 'link-dest'), ('none', 'none'), ('btrfs', 'btrfs'), ('reflink', 'reflink'), ('auto', 'auto')], max_length=16)),
                ('filter', models.JSONField(blank=True, default=list)),
                ('exclude', models.JSONField(blank=True, default=list)),
                ('preserve_hard_links', models.BooleanField(default=False)),
                ('shared_service', models.BooleanField(default=False)),
                ('large_rotating_files', models.BooleanField(default=False)),
                ('large_modifying_files', models.BooleanField(default=False)),
                ('other_options', models.JSONField(blank=True, default=dict, help_text='Options that are stored as the machine sent them.')),
                ('active', models.BooleanField(default=True, help_text='Set by the operator.')),
                ('published', models.BooleanField(default=True, help_text="Declared in the machine's configuration.")),
                ('date_withdrawn', models.DateTimeField(blank=True, editable=False, help_text='Date on which the machine stopped declaring a source with backups. Empty once confirmed.', null=True, verbose_name='withdrawn')),
                ('date_added', models.DateTimeField(db_index=True, editable=False)),
                ('date_last_backed_up', models.DateTimeField(blank=True, db_index=True, editable=False, null=True, verbose_name='last good backup')),
                ('date_next_backup', models.DateTimeField(db_index=True, verbose_name='next backup')),
                ('date_expected', models.DateTimeField(blank=True, db_index=True, editable=False, help_text='Counted from the last good backup. Neither failures nor an order to back up now change it.', null=True, verbose_name='next backup by the schedule')),
                ('longest_pause_days', models.PositiveIntegerField(default=0, editable=False)),
                ('success', models.BooleanField(blank=True, editable=False, null=True, verbose_name='last run succeeded')),
                ('quarantined', models.BooleanField(default=False, editable=False, help_text='Its storage keeps the snapshot in quarantine until a person accepts or rejects it.', verbose_name='last backup quarantined')),
                ('findings', models.JSONField(blank=True, default=list, editable=False, verbose_name='findings')),
                ('failure_count', models.PositiveIntegerField(default=0, editable=False, verbose_name='failures in a row')),
                ('failure_reason', models.CharField(blank=True, default='', editable=False, max_length=300, verbose_name='reason of the last failure')),
                ('date_incomplete_since', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='incomplete since')),
                ('missing_files', models.PositiveBigIntegerField(default=0, editable=False, help_text='Files that no backup could read.', verbose_name='files missing')),
                ('stale_files', models.PositiveBigIntegerField(default=0, editable=False, help_text='Files that could not be read and are kept as they were at their last good backup.', verbose_name='files stale')),
                ('incomplete_reasons', models.JSONField(blank=True, default=list, editable=False, verbose_name='reasons for incompleteness')),
                ('fallback_count', models.PositiveIntegerField(default=0, editable=False, help_text='Good runs that transferred everything although there was a base snapshot.', verbose_name='full runs in a row')),
                ('fallback_reason', models.CharField(blank=True, default='', editable=False, max_length=1000, verbose_name='reason of the last full run')),
                ('search_text', models.GeneratedField(db_persist=True, expression=django.db.models.functions.text.Lower(django.db.models.functions.text.Concat('name', models.Value(' '), 'path', models.Value(' '), 'comment', models.Value(' '), output_field=models.TextField())), output_field=models.TextField())),
                ('machine', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='sources', to='fleet.machine')),
            ],
            options={
                'ordering': ('machine_id', 'name'),
            },
        ),
        migrations.CreateModel(
            name='BackupRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('date', models.DateTimeField(db_index=True, verbose_name='reported')),
                ('success', models.BooleanField()),
                ('snapshot', models.CharField(blank=True, max_length=200)),
                ('strategy', models.CharField(blank=True, choices=[('unchanged', 'unchanged'), ('incremental', 'incremental'), ('full', 'full'), ('in-place', 'in place')], default='', max_length=16)),
                ('strategy_reason', models.CharField(blank=True, default='', help_text='The reason for a full transfer although there was a base snapshot.', max_length=1000, verbose_name='reason')),
                ('summary', models.TextField(blank=True)),
                ('missing_files', models.PositiveBigIntegerField(default=0, verbose_name='files missing')),
                ('stale_files', models.PositiveBigIntegerField(default=0, verbose_name='files stale')),
                ('warning_count', models.PositiveBigIntegerField(default=0, verbose_name='warnings')),
                ('warnings', models.JSONField(blank=True, default=list, verbose_name='first warnings')),
                ('date_begin', models.DateTimeField(blank=True, null=True, verbose_name='begun')),
                ('date_end', models.DateTimeField(blank=True, null=True, verbose_name='ended')),
                ('storage', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='runs', to='fleet.storage')),
                ('source', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='runs', to='backups.source')),
            ],
            options={
                'ordering': ('-date', '-id'),
            },
        ),
        migrations.CreateModel(
            name='SourceChange',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('date', models.DateTimeField(db_index=True, verbose_name='changed')),
                ('date_effective', models.DateTimeField(blank=True, db_index=True, help_text='Empty until an operator applies it.', null=True, verbose_name='takes effect')),
                ('weakenings', models.JSONField(default=list)),
                ('old', models.JSONField(default=dict)),
                ('new', models.JSONField(default=dict)),
                ('source', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='weakenings', to='backups.source')),
            ],
            options={
                'verbose_name': 'weakening change',
                'ordering': ('-date', '-id'),
            },
        ),
        migrations.AddIndex(
            model_name='source',
            index=models.Index(condition=models.Q(('success', False)), fields=['machine'], name='source_failed'),
        ),
        migrations.AddIndex(
            model_name='source',
            index=models.Index(condition=models.Q(('quarantined', True)), fields=['machine'], name='source_quarantined'),
        ),
        migrations.AddIndex(
            model_name='source',
            index=models.Index(condition=models.Q(('fallback_count__gte', 3)), fields=['machine'], name='source_falling_back'),
        ),
        migrations.AddIndex(
            model_name='source',
            index=models.Index(condition=models.Q(('date_incomplete_since__isnull', False)), fields=['machine'], name='source_incomplete'),
        ),
        migrations.AddIndex(
            model_name='source',
            index=models.Index(condition=models.Q(('date_withdrawn__isnull', False)), fields=['machine'], name='source_withdrawn'),
        ),
        migrations.AddConstraint(
            model_name='source',
            constraint=models.UniqueConstraint(fields=('machine', 'name'), name='source_name_unique'),
        ),
        migrations.AddIndex(
            model_name='backuprun',
            index=models.Index(fields=['source', '-date'], name='run_source_date'),
        ),
        migrations.AddIndex(
            model_name='backuprun',
            index=models.Index(fields=['storage', '-date', '-id'], name='run_storage_date'),
        ),
        migrations.AddIndex(
            model_name='backuprun',
            index=models.Index(condition=models.Q(('success', False)), fields=['-date', '-id'], name='run_failed_date'),
        ),
        migrations.AddIndex(
            model_name='backuprun',
            index=models.Index(fields=['snapshot'], name='run_snapshot'),
        ),
    ]
