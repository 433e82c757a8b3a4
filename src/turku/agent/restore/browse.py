"""Browsing: asking storages for the snapshots, files and versions that they keep of this machine."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from turku.agent import checkin
from turku.agent.config.model import AgentConfig
from turku.agent.restore import session
from turku.core.filesystem.paths import is_within
from turku.core.log import one_line
from turku.errors import CommandFailed, InvalidValue, MalformedMessage, NotInHistory, StorageNotTrusted
from turku.policy import names
from turku.protocol.messages import SourceOrder
from turku.protocol.restore_messages import Answer, BrowseEnd, BrowseRequest, HistoryRequest

_TIMEOUT_SECONDS = 3600.0
_SNAPSHOTS_LIMIT = 1_000_000
_LOG = logging.getLogger(__name__)


def snapshots(agent: AgentConfig, source: str | None, storage: str | None) -> Iterator[tuple[str, Answer]]:
    """Yield the rows of one source or of all, each with the name of its storage, one storage after the other.

    Storages that backed this machine up before it was moved come last. One that does not answer is a warning. Raises
    NotInHistory, StorageNotTrusted, CommandFailed, ApiRefused, ApiUnreachable.
    """
    restorable = checkin.restorable_sources(agent).on(storage)
    yield from _snapshots(agent, source, restorable.sources)
    for address in restorable.former_storages:
        try:
            yield from _snapshots(agent, source, restorable.on(address.name).sources)
        except (NotInHistory, StorageNotTrusted, CommandFailed) as error:
            _LOG.warning("former storage %s: %s", one_line(address.name), error.message)


def _snapshots(agent: AgentConfig, source: str | None, active: dict[str, SourceOrder]) -> Iterator[tuple[str, Answer]]:
    if source is not None:
        active = {source: order_of(active, source)}
    for address, sources in checkin.by_storage(active):
        for start in range(0, len(sources), 1000):
            request = BrowseRequest("snapshots", list(sources[start : start + 1000]))
            for answer in rows(agent, request, active[sources[0]]):
                yield address.name, answer


def order_of(active: dict[str, SourceOrder], source: str) -> SourceOrder:
    """Return the coordinator's entry for a source of this machine. Raises NotInHistory with the known names."""
    if source in active:
        return active[source]
    known = ", ".join(map(one_line, active))
    raise NotInHistory(
        f"the coordinator knows no source {one_line(source)[:200]!r} of this machine",
        hint=f"there is {known}" if known else "turku-update-config tells it of the sources",
    )


def path_in_source(agent: AgentConfig, order: SourceOrder, source: str, text: str) -> bytes:
    """Return the path relative to the source that a person typed, as such or as an absolute path on this machine.

    Raises InvalidValue for a path outside the source.
    """
    path = os.fsencode(text)
    if not path.startswith(b"/"):
        return names.path_inside(path)
    configured = agent.sources.get(source)
    root = os.fsencode(configured.path if configured is not None else order.path)
    for base in {root.rstrip(b"/"), os.fsencode(Path(os.fsdecode(root)).resolve())}:
        if is_within(path.rstrip(b"/") or b"/", base):
            return names.path_inside(path[len(base) :].lstrip(b"/"))
    raise InvalidValue(
        f"{one_line(path)} is not in source {source}, which is {one_line(root)}",
        hint="name it relative to the source's directory, or choose the source that has it",
    )


def rows(agent: AgentConfig, request: BrowseRequest, order: SourceOrder) -> Iterator[Answer]:
    """Yield the rows that the source's storage answers, the last of them a BrowseEnd. Raises as ``snapshots`` does."""
    address = session.trusted_address(agent, order.storage)
    left = _SNAPSHOTS_LIMIT if request.listing == "snapshots" else request.limit
    message = HistoryRequest("browse", browse=request)
    for answer in session.ask(agent, address, message, last=BrowseEnd, timeout_seconds=_TIMEOUT_SECONDS):
        left -= not isinstance(answer, BrowseEnd)
        if left < 0:
            # A program that reads the rows must not get more than it asked for either (threats S4).
            raise MalformedMessage(f"storage {address.name} answers with more rows than were asked for")
        yield answer
