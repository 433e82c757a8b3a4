"""The tables of the app, as Django generated them."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('backups', '0001_initial'),
        ('fleet', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='IntegrityState',
            fields=[
                ('source', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='integrity', serialize=False, to='backups.source')),
                ('date_verified', models.DateTimeField(db_index=True, null=True, verbose_name='last verified')),
                ('verified_files', models.PositiveBigIntegerField(default=0)),
                ('verified_bytes', models.PositiveBigIntegerField(default=0)),
                ('date_oldest_check', models.DateTimeField(null=True, verbose_name='all files verified since')),
                ('date_drilled', models.DateTimeField(db_index=True, null=True, verbose_name='last good drill')),
                ('date_proven_until', models.DateTimeField(db_index=True, null=True, verbose_name='proven until')),
                ('drill_succeeded', models.BooleanField(null=True, verbose_name='last drill succeeded')),
            ],
            options={
                'verbose_name': 'integrity state',
                'verbose_name_plural': 'integrity states',
                'ordering': ('-date_verified',),
            },
        ),
        migrations.CreateModel(
            name='Damage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('path', models.TextField(help_text='The path within the source, in printable form.')),
                ('digest', models.CharField(editable=False, max_length=64)),
                ('kind', models.CharField(choices=[('content', 'content differs'), ('missing', 'missing'), ('unreadable', 'unreadable'), ('source', "differs from the machine's file of the same size and time"), ('attributes', 'extended attributes or ACLs differ')], max_length=16, verbose_name='what is wrong')),
                ('state', models.CharField(choices=[('lost', 'lost'), ('next_backup', 'waits for the next backup'), ('alarm', 'needs attention'), ('repaired', 'repaired'), ('gone', 'left history')], max_length=16)),
                ('checksum', models.CharField(blank=True, max_length=64, verbose_name='expected checksum')),
                ('snapshots', models.JSONField(default=list, verbose_name='some of the snapshots')),
                ('snapshot_count', models.PositiveBigIntegerField(default=0, verbose_name='snapshots affected')),
                ('date_found', models.DateTimeField(db_index=True, verbose_name='found')),
                ('date_changed', models.DateTimeField(verbose_name='last reported')),
                ('date_acknowledged', models.DateTimeField(blank=True, null=True, verbose_name='judged')),
                ('acknowledged_by', models.CharField(blank=True, max_length=200)),
                ('source', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='damages', to='backups.source')),
                ('storage', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='damages', to='fleet.storage')),
            ],
            options={
                'verbose_name': 'damaged file',
                'ordering': ('-date_found', '-id'),
                'indexes': [models.Index(condition=models.Q(models.Q(('state__in', ('repaired', 'gone')), _negated=True), ('date_acknowledged', None)), fields=['source'], name='damage_open'), models.Index(fields=['storage', '-date_found'], name='damage_storage_date')],
                'constraints': [models.UniqueConstraint(fields=('source', 'digest'), name='damage_digest_unique')],
            },
        ),
        migrations.CreateModel(
            name='Drill',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('date', models.DateTimeField(db_index=True, verbose_name='reported')),
                ('success', models.BooleanField()),
                ('snapshot', models.CharField(blank=True, max_length=200)),
                ('files', models.PositiveBigIntegerField(default=0, verbose_name='files restored')),
                ('size_bytes', models.PositiveBigIntegerField(default=0, verbose_name='bytes restored')),
                ('date_begin', models.DateTimeField(verbose_name='begun')),
                ('date_end', models.DateTimeField(verbose_name='ended')),
                ('summary', models.TextField(blank=True)),
                ('source', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='drills', to='backups.source')),
                ('storage', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='drills', to='fleet.storage')),
            ],
            options={
                'verbose_name': 'restore drill',
                'ordering': ('-date', '-id'),
                'indexes': [models.Index(fields=['source', '-date', '-id'], name='drill_source_date'), models.Index(fields=['storage', '-date', '-id'], name='drill_storage_date'), models.Index(condition=models.Q(('success', False)), fields=['-date', '-id'], name='drill_failed_date')],
            },
        ),
    ]
