"""System checks of the settings, each with its id."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as WarningMessage

from turku.api.configuration import service_user
from turku.api.fleet.identity import keyring
from turku.core.configuration import exposed_secrets
from turku.core.setup import host_files
from turku.errors import TurkuError


@register
def environment_check(**_arguments: Any) -> list[CheckMessage]:
    """Return an error for each invalid TURKU_* variable (turku.E001 to E010, E012 to E018)."""
    return [Error(error.message, hint=error.hint or None, id=error.id) for error in settings.TURKU_SETTING_ERRORS]


@register
def hash_key_check(**_arguments: Any) -> list[CheckMessage]:
    """Check the hash keys.

    Keys that cannot be used are an error (turku.E011). A key that this host generated beside a database that other
    hosts may share is a warning (turku.W001).
    """
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
                hint="Give all of them one key file, set TURKU_HASH_KEY_FILE to it, and back it up with the database.",
                id="turku.W001",
            )
        )
    return messages


@register
def host_files_check(**_arguments: Any) -> list[CheckMessage]:
    """Return a warning for each installed unit or other file that is not of this version (turku.W002)."""
    return [
        WarningMessage(f"{sentence[0].upper()}{sentence[1:]}.", id="turku.W002")
        for sentence in host_files.outdated("turku.api", "turku-api")
    ]


@register
def exposed_secrets_check(**_arguments: Any) -> list[CheckMessage]:
    """Return a warning for an environment file with a secret that other users may read (turku.W003)."""
    # The group of the environment file is that of the service, as turku-api setup writes it.
    private = [service_user.FILE] if exposed_secrets.names_a_secret(service_user.FILE) else []
    files = exposed_secrets.of_files(private, allowed_mode=0o640)
    return [WarningMessage(f"{file.path}: {file.fault}.", id="turku.W003") for file in files if file.fault]
