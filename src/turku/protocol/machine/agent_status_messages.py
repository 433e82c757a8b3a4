"""The call ``agent_status``, beyond the contract: the state of a machine at its coordinator."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from turku.protocol.messages import StorageAddress, Text

STATUS_CALL: Final = "agent_status"


class SourceStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source, as the coordinator has it. ``failed`` is the time of the last run, if that failed."""

    succeeded: datetime | None = None
    failed: datetime | None = None
    failure_reason: Text = ""
    next: datetime | None = None
    is_declared: bool = True
    is_active: bool = True


class AgentStatusAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``now`` is the coordinator's time. Without a ``storage``, none is assigned, or it is switched off."""

    now: datetime
    is_published: bool = True
    storage: StorageAddress | None = None
    sources: Annotated[dict[Text, SourceStatus], Meta(max_length=10_000)] = {}
    refused: Annotated[dict[Text, Text], Meta(max_length=1000)] = {}
