"""What all tests share: a private state directory for the coordinator, and hypothesis's profile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from hypothesis import settings as hypothesis_settings

from turku.api import environment

if "TURKU_DATABASE_URL" in os.environ:
    raise pytest.UsageError("TURKU_DATABASE_URL is set: the tests bring their own databases; unset it")

_STATE_DIR = Path(tempfile.mkdtemp(prefix="turku-tests-"))
for _name in [name for name in os.environ if name.startswith("TURKU_")]:
    del os.environ[_name]
os.environ["TURKU_STATE_DIR"] = str(_STATE_DIR)
# pytest-django reads the settings before any conftest; what they took from the environment is replaced.
django_settings.TURKU_ENVIRONMENT = environment.read(os.environ)
django_settings.TURKU_MISTAKES = []

# No deadline per example: two shared cores make single examples slow now and then.
hypothesis_settings.register_profile("turku", max_examples=100, deadline=None)
hypothesis_settings.load_profile("turku")


@pytest.fixture(scope="session", autouse=True)
def _coordinator_state() -> Iterator[None]:
    yield
    shutil.rmtree(_STATE_DIR, ignore_errors=True)
