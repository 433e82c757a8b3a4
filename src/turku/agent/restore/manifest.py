"""The manifest of a restore: the storage's list of the paths that it restores, asked for without any transfer."""

from __future__ import annotations

from collections.abc import Iterator

from turku.agent.config.model import AgentConfig
from turku.agent.restore import session
from turku.agent.restore.job import RestoreJob
from turku.agent.tunnel.storage_address import Address
from turku.errors import InvalidValue, MalformedMessage
from turku.policy import names
from turku.protocol.restore_messages import Answer, HistoryRequest, RestoreEnd, WirePath, path_bytes


def request(agent: AgentConfig, job: RestoreJob, address: Address, *, timeout_seconds: float) -> Iterator[Answer]:
    """Yield the storage's answers to a request that lists and restores nothing. The last one is a RestoreEnd.

    Raises CommandFailed where the answers end early, and as ``run.restore`` does.
    """
    message = HistoryRequest("restore_files", restore_files=job.message(agent, list_only=True))
    is_complete = False
    for answer in session.ask(agent, address, message, timeout_seconds=timeout_seconds):
        is_complete = is_complete or isinstance(answer, RestoreEnd)
        yield answer
    if not is_complete:
        raise session.incomplete_answer(address)


def checked_path(path: WirePath, of: str = "manifest") -> bytes:
    """Return a path that a storage sent, relative to the source. Raises MalformedMessage for an invalid one."""
    try:
        return names.path_inside(path_bytes(path))
    except InvalidValue as error:
        raise MalformedMessage(f"the storage's {of}: {error.message}") from error
