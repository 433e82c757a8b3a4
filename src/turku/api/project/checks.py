"""System checks: what is wrong with the settings, all of it at once, each with its id."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as WarningMessage

from turku.api.fleet.identity import keyring
from turku.errors import TurkuError


@register
def environment_check(**_arguments: Any) -> list[CheckMessage]:
    """An error per mistaken TURKU_* variable (turku.E001 to E010, E012, E013)."""
    return [Error(mistake.message, hint=mistake.hint or None, id=mistake.id) for mistake in settings.TURKU_MISTAKES]


@register
def hash_key_check(**_arguments: Any) -> list[CheckMessage]:
    """An error for hash keys that cannot be used (turku.E011); a warning for a key made by this host alone beside a
    database that other hosts may use too (turku.W001)."""
    messages: list[CheckMessage] = []
    try:
        keyring.current()
    except TurkuError as error:
        messages.append(Error(f"No hash key: {error.message}.", hint=error.hint or None, id="turku.E011"))
    environment = settings.TURKU_ENVIRONMENT
    if environment.database.is_shared and environment.hash_key_is_local:
        messages.append(
            WarningMessage(
                f"The hash key {environment.hash_key_file} was generated on this host, while other coordinators may "
                "use the same database.",
                hint="Give all of them one key file and name it in TURKU_HASH_KEY_FILE; back it up with the database.",
                id="turku.W001",
            )
        )
    return messages
