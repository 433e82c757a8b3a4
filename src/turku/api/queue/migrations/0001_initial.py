"""The tables of the app, as Django generated them."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('fleet', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='StorageSlots',
            fields=[
                ('storage', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='slot_settings', serialize=False, to='fleet.storage')),
                ('slots', models.PositiveIntegerField(blank=True, help_text="Sessions at once, first backups included. Empty means the storage's number, or 32.", null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000)])),
                ('first_slots', models.PositiveIntegerField(blank=True, help_text='The part of them for first backups. Empty means a quarter.', null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000)], verbose_name='slots for first backups')),
                ('reported_slots', models.PositiveIntegerField(blank=True, editable=False, null=True, verbose_name='slots reported by the storage')),
            ],
            options={
                'verbose_name': 'storage slots',
                'verbose_name_plural': 'storage slots',
                'ordering': ('storage__name',),
            },
        ),
        migrations.CreateModel(
            name='Slot',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('lane', models.CharField(choices=[('regular', 'regular'), ('first', 'first backups')], max_length=8)),
                ('number', models.PositiveIntegerField()),
                ('retired', models.BooleanField(default=False, help_text='There are fewer slots now. Nobody gets this one.')),
                ('date_taken', models.DateTimeField(blank=True, null=True, verbose_name='taken')),
                ('date_begun', models.DateTimeField(blank=True, help_text='Empty while the slot is reserved for a machine that has not started yet.', null=True, verbose_name='begun')),
                ('date_heartbeat', models.DateTimeField(blank=True, null=True, verbose_name='last heartbeat')),
                ('date_expires', models.DateTimeField(blank=True, null=True, verbose_name='expires')),
                ('date_freed', models.DateTimeField(blank=True, null=True, verbose_name='freed')),
                ('date_last_begun', models.DateTimeField(blank=True, help_text='Start of the session that freed the slot.', null=True)),
                ('machine', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='slots', to='fleet.machine')),
                ('storage', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='slots', to='fleet.storage')),
            ],
            options={
                'ordering': ('storage_id', 'lane', 'number'),
                'indexes': [models.Index(condition=models.Q(('machine', None), _negated=True), fields=['date_expires'], name='slot_expires')],
                'constraints': [models.UniqueConstraint(fields=('storage', 'lane', 'number'), name='slot_number_unique'), models.UniqueConstraint(condition=models.Q(('machine', None), _negated=True), fields=('machine', 'lane'), name='slot_machine_unique')],
            },
        ),
        migrations.CreateModel(
            name='WaitingMachine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('lane', models.CharField(choices=[('regular', 'regular'), ('first', 'first backups')], max_length=8)),
                ('date_due', models.DateTimeField(verbose_name='due since')),
                ('date_deadline', models.DateTimeField(help_text='The queue is ordered by it.', verbose_name='grace period ends')),
                ('date_queued', models.DateTimeField(verbose_name='waiting since')),
                ('date_asked', models.DateTimeField(verbose_name='asked last')),
                ('date_no_show', models.DateTimeField(blank=True, help_text='Date on which it let a reserved slot lapse.', null=True, verbose_name='no-show')),
                ('machine', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='waiting', to='fleet.machine')),
                ('storage', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='waiting', to='fleet.storage')),
            ],
            options={
                'ordering': ('storage_id', 'lane', 'date_deadline'),
                'indexes': [models.Index(fields=['storage', 'lane', 'date_deadline'], name='waiting_order'), models.Index(fields=['storage', 'date_asked'], name='waiting_asked')],
                'constraints': [models.UniqueConstraint(fields=('machine', 'lane'), name='waiting_machine_unique')],
            },
        ),
    ]
