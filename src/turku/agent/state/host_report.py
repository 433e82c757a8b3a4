"""The report on this host that a checkin carries: its running system, and its programs' versions where they changed."""

import logging
from collections.abc import Sequence

import msgspec

from turku.agent.config.model import AgentConfig
from turku.agent.state import var_dir
from turku.core import durable
from turku.core.kernel import host_software
from turku.core.kernel.host_software import KnownProgram
from turku.core.kernel.running_system import running_system
from turku.core.log import one_line
from turku.errors import DurableWriteFailed
from turku.protocol.messages import HostReport

_FILE = "versions.json"
_LIMIT_BYTES = 64 * 1024
_SHOWN_LENGTH = 1000
_LOG = logging.getLogger(__name__)


class _VersionRecord(msgspec.Struct, frozen=True):
    """The programs that were asked, and the versions that the coordinator was told last."""

    programs: dict[str, KnownProgram] = {}
    reported: dict[str, str] = {}


def report(agent: AgentConfig, *, is_whole: bool = False) -> HostReport:
    """Return the report. With ``is_whole`` it has the versions even where the coordinator was told them before."""
    record = _read(agent)
    commands = {"rsync": agent.rsyncd.rsyncd_command, "ssh": agent.tunnel.ssh_command}
    versions, programs = host_software.versions(commands, record.programs)
    if programs != record.programs:
        _write(agent, _VersionRecord(programs, record.reported))
    return HostReport(running_system(), versions if is_whole or versions != record.reported else {})


def note_reported(agent: AgentConfig, sent: HostReport) -> None:
    """Record that the coordinator took the report."""
    if not sent.versions:
        return
    record = _read(agent)
    if sent.versions != record.reported:
        _write(agent, _VersionRecord(record.programs, sent.versions))


def show_warnings(warnings: Sequence[str]) -> None:
    """Log what the coordinator says about this machine."""
    for warning in warnings:
        _LOG.warning("the coordinator says: %s", one_line(warning)[:_SHOWN_LENGTH])


def _read(agent: AgentConfig) -> _VersionRecord:
    try:
        content = durable.read_regular_file(agent.state.var_dir / _FILE, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=_VersionRecord)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return _VersionRecord()


def _write(agent: AgentConfig, record: _VersionRecord) -> None:
    try:
        path = var_dir.directory(agent.state) / _FILE
        var_dir.write_text(agent.state, path, msgspec.json.encode(record).decode() + "\n")
    except DurableWriteFailed as error:
        # The programs are asked again in the next run.
        _LOG.debug("%s", error.message)
