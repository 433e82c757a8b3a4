"""The tables of the app, as Django generated them."""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
from django.db import migrations, models


def leave_room(_apps, schema_editor):
    """Leave room in the pages of PostgreSQL's table, so that a checkin updates its row in place."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE fleet_machine SET (fillfactor = 80)")


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='BadCredentialCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('bucket', models.CharField(max_length=64, unique=True)),
                ('date_begin', models.DateTimeField(db_index=True)),
                ('count', models.PositiveIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='FilterSet',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200, unique=True)),
                ('rules', models.JSONField(default=list, help_text='A list of rsync filter rules.')),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('active', models.BooleanField(default=True)),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='HashKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key_id', models.CharField(max_length=32, unique=True)),
                ('date_added', models.DateTimeField()),
            ],
            options={
                'ordering': ('date_added',),
            },
        ),
        migrations.CreateModel(
            name='Auth',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200)),
                ('kind', models.CharField(choices=[('machine_reg', 'machine registration'), ('storage_reg', 'storage registration')], default='machine_reg', max_length=16)),
                ('secret_hash', models.CharField(db_index=True, editable=False, max_length=128)),
                ('active', models.BooleanField(default=True, help_text='Allows the registration of new machines or storages.')),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('date_added', models.DateTimeField(editable=False)),
            ],
            options={
                'verbose_name': 'registration auth',
                'ordering': ('kind', 'name'),
                'constraints': [models.UniqueConstraint(fields=('kind', 'name'), name='auth_name_unique')],
            },
        ),
        migrations.CreateModel(
            name='Storage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200, unique=True)),
                ('secret_hash', models.CharField(db_index=True, editable=False, max_length=128)),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('ssh_ping_host', models.CharField(max_length=200, verbose_name='SSH host')),
                ('ssh_ping_host_keys', models.JSONField(default=list, verbose_name='SSH host keys')),
                ('ssh_ping_port', models.PositiveIntegerField(default=22, verbose_name='SSH port')),
                ('ssh_ping_user', models.CharField(max_length=200, verbose_name='SSH user')),
                ('space_total', models.FloatField(default=0, help_text='In MiB, as reported by the storage.')),
                ('space_available', models.FloatField(db_index=True, default=0, help_text='In MiB, as reported by the storage.')),
                ('faults', models.JSONField(default=list, editable=False, help_text='Problems that the storage reports.')),
                ('active', models.BooleanField(default=True, help_text='Set by the operator.')),
                ('published', models.BooleanField(default=True, help_text='Set by the storage.')),
                ('date_registered', models.DateTimeField(db_index=True, editable=False)),
                ('date_checked_in', models.DateTimeField(blank=True, db_index=True, editable=False, null=True)),
                ('auth', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='storages', to='fleet.auth', verbose_name='registered with')),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Machine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('uuid', models.UUIDField(unique=True, verbose_name='UUID')),
                ('secret_hash', models.CharField(editable=False, max_length=128)),
                ('environment_name', models.CharField(blank=True, max_length=200, verbose_name='environment')),
                ('service_name', models.CharField(blank=True, max_length=200, verbose_name='service')),
                ('unit_name', models.CharField(blank=True, max_length=200, verbose_name='unit')),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('ssh_public_key', models.TextField(blank=True, verbose_name='SSH public key')),
                ('ssh_key_fingerprint', models.CharField(blank=True, editable=False, max_length=64, verbose_name='SSH key fingerprint')),
                ('active', models.BooleanField(default=True, help_text='Set by the operator.')),
                ('published', models.BooleanField(default=True, help_text='Set by the machine.')),
                ('date_registered', models.DateTimeField(db_index=True, editable=False)),
                ('date_checked_in', models.DateTimeField(blank=True, editable=False, null=True)),
                ('date_muted_until', models.DateTimeField(blank=True, db_index=True, help_text='Until then, silence and failed or missing backups of the machine do not count as problems.', null=True, verbose_name='muted until')),
                ('mute_reason', models.CharField(blank=True, default='', max_length=200, verbose_name='mute reason')),
                ('re_enrol_code_hash', models.CharField(blank=True, db_index=True, editable=False, max_length=128)),
                ('date_re_enrol_code_ends', models.DateTimeField(blank=True, editable=False, null=True)),
                ('re_enrol_code_is_used', models.BooleanField(default=False, editable=False)),
                ('search_text', models.GeneratedField(db_persist=True, expression=django.db.models.functions.text.Lower(django.db.models.functions.text.Concat('environment_name', models.Value(' '), 'service_name', models.Value(' '), 'unit_name', models.Value(' '), 'comment', models.Value(' '), output_field=models.TextField())), output_field=models.TextField())),
                ('auth', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='machines', to='fleet.auth', verbose_name='registered with')),
                ('storage', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='machines', to='fleet.storage')),
            ],
            options={
                'ordering': ('environment_name', 'service_name', 'unit_name', 'uuid'),
            },
        ),
        migrations.CreateModel(
            name='Policy',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('retention_floor', models.CharField(blank=True, help_text="Kept in addition to the machine's own retention, such as “last 14 days, earliest of 3 months”.", max_length=1000, verbose_name='minimum retention')),
                ('allowed_snapshot_modes', models.JSONField(blank=True, help_text='A source with another mode gets the default one. None selected means any mode.', null=True)),
                ('quota_bytes', models.PositiveBigIntegerField(blank=True, help_text='Bytes that all sources of a machine may use together.', null=True, verbose_name='quota')),
                ('delay_hours', models.PositiveIntegerField(blank=True, help_text='Hours until a weakening change takes effect on history. The default is 168, seven days.', null=True, validators=[django.core.validators.MaxValueValidator(87840)], verbose_name='delay')),
                ('weakening_allowed', models.BooleanField(blank=True, help_text='If not, a weakening change waits until an operator applies it.', null=True)),
                ('silent_after_hours', models.PositiveIntegerField(blank=True, help_text='Hours without a checkin after which a machine counts as silent. The default of 1 suits servers. 336, which is 14 days, suits laptops.', null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(8784)], verbose_name='silent after')),
                ('comment', models.CharField(blank=True, max_length=200)),
                ('auth', models.OneToOneField(blank=True, help_text='For the machines registered with it.', limit_choices_to={'kind': 'machine_reg'}, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(class)s', to='fleet.auth')),
                ('machine', models.OneToOneField(blank=True, help_text='For this machine alone.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(class)s', to='fleet.machine')),
            ],
            options={
                'verbose_name_plural': 'policies',
                'ordering': ('machine_id', 'auth_id'),
                'abstract': False,
                'constraints': [models.CheckConstraint(condition=models.Q(('auth', None), ('machine', None), _connector='OR'), name='policy_scope', violation_error_message='A policy is for one auth or for one machine, not both.'), models.UniqueConstraint(django.db.models.functions.comparison.Coalesce('auth_id', 0), django.db.models.functions.comparison.Coalesce('machine_id', 0), name='policy_scope_unique', violation_error_message='A policy for these machines already exists.')],
            },
        ),
        migrations.AddIndex(
            model_name='machine',
            index=models.Index(fields=['environment_name', 'service_name', 'unit_name'], name='machine_names'),
        ),
        migrations.AddIndex(
            model_name='machine',
            index=models.Index(fields=['unit_name'], name='machine_unit'),
        ),
        migrations.AddConstraint(
            model_name='machine',
            constraint=models.UniqueConstraint(condition=models.Q(('ssh_key_fingerprint', ''), _negated=True), fields=('ssh_key_fingerprint',), name='machine_key_unique'),
        ),
        migrations.RunPython(leave_room, migrations.RunPython.noop),
    ]
