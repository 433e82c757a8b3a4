"""Rotation: the machine gets a new secret and SSH key, and an interruption at any moment loses neither.

The new secret and key are written completely before the coordinator is told. They stay until they are in their places.
A run that finds them finishes the rotation first. The coordinator accepts the same call again, whichever secret it has.
"""

import logging
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from turku.agent.config.loading import IDENTITY_FILE
from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.identity import key_pair, machine_identity
from turku.agent.state import var_dir
from turku.core import durable
from turku.core.configuration import directory
from turku.core.configuration.declaration import with_values
from turku.core.secret import Secret, generate_secret
from turku.errors import ApiForbidden, ApiNotFound, ApiRefused, ApiRejected, ConfigurationError, LockHeld
from turku.policy import names
from turku.protocol import secret_change
from turku.protocol.messages import Empty, MachineReenrolAnswer, MachineReenrolRequest, MachineRotateRequest

_LOG = logging.getLogger(__name__)


class _NewIdentity(msgspec.Struct, frozen=True):
    """The new secret. The new key pair lies beside its file. ``code`` is set only for a re-enrolment."""

    machine_secret: str
    code: str | None = None


def rotate_keys(agent: AgentConfig) -> None:
    """Give this machine a new secret and a new SSH key.

    An interrupted rotation is finished by the next run of any program. Raises ConfigurationError (not registered, or
    the secret is set by hand), ApiRefused, ApiUnreachable.
    """
    _require_ours(agent, "machine_secret")
    with machine_identity.locked(agent.state):
        staged = _read_staged(agent.state)
        if staged is not None and staged.code is not None:
            raise ConfigurationError("a re-enrolment is under way", hint="turku-agent re-enrol finishes it")
        machine = machine_identity.existing(agent)
        secret_change.carry_out(
            staged,
            begin=lambda: _stage(agent, code=None),
            finish=lambda new: _finish(agent, machine.uuid, new),
            drop=lambda: _drop(agent.state),
        )


def re_enrol(agent: AgentConfig, code: str) -> AgentConfig:
    """Make this machine the one that the operator's code is for, with a new secret and key. Return its configuration.

    Raises as ``rotate_keys`` does.
    """
    _require_ours(agent, "machine_uuid", "machine_secret")
    with machine_identity.locked(agent.state):
        staged = _read_staged(agent.state)
        if staged is not None and staged.code is None:
            raise ConfigurationError("a rotation is under way", hint="turku-agent rotate-keys finishes it")
        if staged is None or staged.code != code:
            staged = _stage(agent, code=code)
        try:
            return _finish(agent, agent.identity.machine_uuid, staged)
        except ApiRefused as error:
            _forget_refused_code(agent.state, error)
            raise


def resume(agent: AgentConfig) -> AgentConfig:
    """Finish what an interrupted run has begun, and return the machine's configuration.

    It is postponed where the coordinator refuses. Raises ApiUnreachable, LockHeld.
    """
    with machine_identity.locked(agent.state):
        new = _read_staged(agent.state)
        if new is None:
            return agent
        try:
            return _finish(agent, agent.identity.machine_uuid, new)
        except ApiRefused as error:
            _LOG.warning("a change of this machine's secret and key is not finished: %s", error.message)
            if new.code is not None:
                _forget_refused_code(agent.state, error)
            return agent


def remove_leftovers(configuration: AgentState) -> None:
    """Remove the files of a run that was killed before its rotation began. ``resume`` finishes what was begun."""
    with suppress(LockHeld), machine_identity.locked(configuration):
        if (configuration.var_dir / machine_identity.NEW_IDENTITY_FILE).exists():
            return
        _drop(configuration)
        for left in (configuration.var_dir / "run").glob(f"{machine_identity.SCRATCH_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        _LOG.warning("removed the keys of an interrupted rotation")


def _require_ours(agent: AgentConfig, *keys: str) -> None:
    configured = directory.read_directories([agent.config_dir / "config.d"])
    for key in keys:
        if key in configured.content:
            raise ConfigurationError(
                f"{configured.place(key)}: is set by hand, and would take precedence over a new one",
                hint=f"remove it there once it is in {agent.state.var_dir / 'config.d'}, where programs keep it",
            )


def _staged_key(configuration: AgentState) -> tuple[Path, Path]:
    return (
        configuration.var_dir / machine_identity.STAGED_KEY,
        configuration.var_dir / f"{machine_identity.STAGED_KEY}.pub",
    )


def _read_staged(configuration: AgentState) -> _NewIdentity | None:
    path = configuration.var_dir / machine_identity.NEW_IDENTITY_FILE
    return secret_change.read_pending(path, _NewIdentity, hint="remove it, and start again")


def _stage(agent: AgentConfig, *, code: str | None) -> _NewIdentity:
    var_dir.directory(agent.state)
    key_pair.generate_key(agent, *_staged_key(agent.state))
    new = _NewIdentity(generate_secret().reveal(), code)
    # Last, so that it exists only with the complete key pair beside it.
    var_dir.write_text(
        agent.state, agent.state.var_dir / machine_identity.NEW_IDENTITY_FILE, msgspec.json.encode(new).decode()
    )
    return new


def _finish(agent: AgentConfig, machine_uuid: str | None, new: _NewIdentity) -> AgentConfig:
    private, public = _staged_key(agent.state)
    line = public.read_text(encoding="ascii").strip()
    secret = Secret(new.machine_secret)
    if new.code is None:
        machine = machine_identity.existing(agent)
        request = MachineRotateRequest(
            machine=machine.credentials, new_secret=new.machine_secret, new_ssh_public_key=line
        )
        agent.api.client(agent.state.var_dir).call("machine_rotate", request, Empty)
        machine_uuid = machine.uuid
    else:
        question = MachineReenrolRequest(code=new.code, secret=new.machine_secret, ssh_public_key=line)
        answer = agent.api.client(agent.state.var_dir).call("machine_reenrol", question, MachineReenrolAnswer)
        machine_uuid = names.machine_uuid(answer.machine.uuid)
    _install(agent.state, machine_uuid, secret, private.read_bytes(), line)
    _drop(agent.state)
    return with_values(agent, machine_uuid=machine_uuid, machine_secret=secret)


def _install(configuration: AgentState, machine_uuid: str, secret: Secret, private: bytes, public: str) -> None:
    # Each step may be repeated. An interrupted run leaves the file that makes the next run repeat them.
    current = configuration.var_dir / "ssh_key"
    before = current.read_bytes() if current.exists() else private
    if before != private:
        key_pair.keep_as_previous(configuration, before)
    var_dir.write_text(configuration, current.with_suffix(".pub"), f"{public}\n", mode=0o644)
    var_dir.write_text(configuration, current, private.decode("ascii"))
    machine_identity.write(configuration, machine_uuid, secret)


def _drop(configuration: AgentState) -> None:
    for path in (configuration.var_dir / machine_identity.NEW_IDENTITY_FILE, *_staged_key(configuration)):
        path.unlink(missing_ok=True)
        durable.fsync_directory(path.parent)
    # Half-written keys and secrets of a killed run. Other programs write other files there at the same time.
    for name in ("new_", "ssh_key", IDENTITY_FILE):
        durable.remove_temporary_files(configuration.var_dir, name_prefix=name)
    if (configuration.var_dir / "config.d").exists():
        durable.remove_temporary_files(configuration.var_dir / "config.d", name_prefix=IDENTITY_FILE)


def _forget_refused_code(configuration: AgentState, error: ApiRefused) -> None:
    # The operator can give another code. Where the coordinator may have taken this one, it is tried again.
    if isinstance(error, (ApiRejected, ApiForbidden, ApiNotFound)):
        _drop(configuration)
