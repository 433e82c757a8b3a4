"""The URLs of the calls, with and without a final slash."""

from django.urls import URLPattern, re_path

from turku.api.rpc import agent, agent_status, restore_requests, storage
from turku.api.rpc.endpoint import unknown_call
from turku.api.rpc.health import health
from turku.api.rpc.shortcut import PREFIX, PREFIX_V2

_CALLS = {
    PREFIX: (
        *(health, agent.update_config, agent.agent_ping_checkin, agent.agent_ping_restore),
        *(storage.storage_update_config, storage.storage_ping_checkin, storage.storage_ping_source_update),
        *(agent.machine_rotate, agent.machine_reenrol, storage.storage_rotate),
    ),
    PREFIX_V2: (
        *(storage.storage_heartbeat, storage.storage_integrity_report, storage.storage_access_request),
        *(agent.agent_restores, agent.agent_restore_progress, agent.agent_profiles),
        agent_status.agent_status,
        storage.storage_known_machines,
        *(restore_requests.restore_request, restore_requests.restore_request_approve),
        *(restore_requests.restore_request_reject, restore_requests.restore_request_cancel),
        restore_requests.restore_request_list,
    ),
}

urlpatterns: list[URLPattern] = [
    *(re_path(f"^{prefix[1:]}{view.__name__}/?$", view) for prefix, views in _CALLS.items() for view in views),
    *(re_path(f"^{prefix[1:]}", unknown_call) for prefix in _CALLS),
]
