"""The migrations are those of the models."""

import pytest
from django.core.management import call_command


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    # Ends with SystemExit if a model has a change that no migration makes.
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
