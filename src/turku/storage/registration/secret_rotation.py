"""Rotation of this storage's secret. Nothing is lost if it is interrupted.

The new secret is on the disk before the coordinator receives it, and stays there until it is in the configuration. The
coordinator accepts either secret for the change, so the call can be repeated. Other calls have both secrets meanwhile
(``registration.coordinator``).
"""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from turku.core import durable, lock
from turku.core.configuration import directory as directories
from turku.core.configuration.declaration import with_values
from turku.core.secret import Secret, generate_secret
from turku.errors import ApiRefused, ConfigurationError, LockHeld
from turku.protocol import secret_change
from turku.protocol.messages import Empty, StorageCredentials, StorageRotateRequest
from turku.storage.config.defaults import DEFAULT_VAR_DIR
from turku.storage.config.loading import GENERATED_FILE, write_identity
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.registration.acting_user import name_of

_LOG = logging.getLogger(__name__)
_PENDING_FILE: Final = "new_secret.json"
_LOCK: Final = "rotate-secret"


class _NewSecret(msgspec.Struct, frozen=True):
    secret: str


def rotate(configuration: StorageConfig) -> bool:
    """Give this storage a new secret, or finish an earlier change. Return True for an earlier change.

    Raises ConfigurationError (the secret is set by hand, or the storage is another user's), ApiRefused, ApiUnreachable,
    LockHeld, DurableWriteFailed. After ApiUnreachable the next run of any kind finishes the change.
    """
    _require_ours(configuration)
    with lock.exclusive(configuration.state.lock_dir, _LOCK):
        begun = _begun(configuration.state)
        secret_change.carry_out(
            begun,
            begin=lambda: _begin(configuration.state),
            finish=lambda new: _finish(configuration, new),
            drop=lambda: _drop(configuration.state),
        )
    return begun is not None


def resume(configuration: StorageConfig) -> StorageConfig:
    """Finish a change that another run began, and return the storage's new configuration.

    The change is put off if the coordinator refuses it. Raises ApiUnreachable, DurableWriteFailed.
    """
    if not _path(configuration.state).exists():
        return configuration
    with suppress(LockHeld), lock.exclusive(configuration.state.lock_dir, _LOCK):
        new = _begun(configuration.state)
        if new is None:
            return configuration
        try:
            _require_ours(configuration)
            _finish(configuration, new)
        except (ApiRefused, ConfigurationError) as error:
            _LOG.warning("the change of this storage's secret is not finished: %s", error.message)
            return configuration
        _LOG.info("the change of this storage's secret, begun by another run, is finished")
        return with_values(configuration, secret=Secret(new.secret))
    return configuration


def other_secrets(configuration: StorageConfig, refused: Secret) -> list[Secret]:
    """Return other secrets that the coordinator may hold instead of ``refused``: a pending and a recent one."""
    found = []
    with suppress(ConfigurationError):
        new = _begun(configuration.state)
        found += [Secret(new.secret)] if new is not None else []
    # Read last, as a secret that is no longer pending is stored.
    stored = _tree(configuration).content.get("secret")
    found += [Secret(stored)] if isinstance(stored, str) else []
    return [secret for secret in dict.fromkeys(found) if secret != refused]


def _path(configuration: StorageState) -> Path:
    return configuration.var_dir / _PENDING_FILE


def _identity_file(configuration: StorageState) -> Path:
    return configuration.var_dir / "config.d" / GENERATED_FILE


def _tree(configuration: StorageConfig) -> directories.MergedFiles:
    return directories.read_with_state(configuration.config_dir, default_var_dir=DEFAULT_VAR_DIR)


def _require_ours(configuration: StorageConfig) -> None:
    tree, path = _tree(configuration), _identity_file(configuration.state)
    if tree.origins.get("secret") != path:
        raise ConfigurationError(
            f"{tree.place('secret')}: is set by hand, and would win over a new one",
            hint=f'move it to {path} as {{"secret": ...}}, with mode 0600, where programs keep it',
        )
    owner = path.stat().st_uid
    if owner != os.geteuid():
        # A file of root's could not be read by this storage.
        raise ConfigurationError(
            f"{path} belongs to another user", hint=f"run this as that user: runuser -u '{name_of(owner)}' -- ..."
        )


def _begun(configuration: StorageState) -> _NewSecret | None:
    return secret_change.read_pending(
        _path(configuration),
        _NewSecret,
        hint="it holds the secret that this storage is changing to; remove it only if the present one is accepted",
    )


def _begin(configuration: StorageState) -> _NewSecret:
    new = _NewSecret(generate_secret().reveal())
    durable.write_json(_path(configuration), msgspec.to_builtins(new))
    return new


def _finish(configuration: StorageConfig, new: _NewSecret) -> None:
    path = _identity_file(configuration.state)
    # Read again under the lock, as another run may have changed it.
    content = json.loads(path.read_bytes())
    request = StorageRotateRequest(
        storage=StorageCredentials(name=configuration.identity.name, secret=content["secret"]), new_secret=new.secret
    )
    configuration.api.client(configuration.state.var_dir).call("storage_rotate", request, Empty)
    write_identity(path, {**content, "secret": new.secret})
    _drop(configuration.state)


def _drop(configuration: StorageState) -> None:
    _path(configuration).unlink(missing_ok=True)
    durable.fsync_directory(configuration.var_dir)
