"""The URLs of the seven calls of the contract and three others, with and without a final slash."""

from __future__ import annotations

from django.urls import URLPattern, re_path

from turku.api.rpc import agent, storage
from turku.api.rpc.endpoint import unknown_call
from turku.api.rpc.health import health

_CALLS = {
    "health": health,
    "update_config": agent.update_config,
    "agent_ping_checkin": agent.agent_ping_checkin,
    "agent_ping_restore": agent.agent_ping_restore,
    "storage_update_config": storage.storage_update_config,
    "storage_ping_checkin": storage.storage_ping_checkin,
    "storage_ping_source_update": storage.storage_ping_source_update,
    "machine_rotate": agent.machine_rotate,
    "machine_reenrol": agent.machine_reenrol,
    "storage_rotate": storage.storage_rotate,
}

urlpatterns: list[URLPattern] = [re_path(rf"^{name}/?$", view, name=name) for name, view in _CALLS.items()]
urlpatterns.append(re_path("", unknown_call))
