"""The URLs of the calls beyond the contract, with and without a final slash."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, re_path

from turku.api.rpc import heartbeat, integrity, restore_requests, restores
from turku.api.rpc.endpoint import unknown_call

_CALLS: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    "storage_heartbeat": heartbeat.storage_heartbeat,
    "storage_integrity_report": integrity.storage_integrity_report,
    "storage_access_request": restores.storage_access_request,
    "agent_restores": restores.agent_restores,
    "agent_restore_progress": restores.agent_restore_progress,
    **restore_requests.CALLS,
}

urlpatterns: list[URLPattern] = [re_path(rf"^{name}/?$", view, name=f"v2_{name}") for name, view in _CALLS.items()]
urlpatterns.append(re_path("", unknown_call))
