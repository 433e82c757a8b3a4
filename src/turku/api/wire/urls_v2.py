"""The calls beyond the contract, each with and without a slash at its end: a call and its view, by name."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, re_path

from turku.api.restores import people_calls
from turku.api.wire import admission, proof, restores
from turku.api.wire.endpoint import unknown_call

_CALLS: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    "storage_heartbeat": admission.storage_heartbeat,
    "storage_proof_report": proof.storage_proof_report,
    "storage_restore_permit": restores.storage_restore_permit,
    "agent_restores": restores.agent_restores,
    "agent_restore_progress": restores.agent_restore_progress,
    **people_calls.CALLS,
}

urlpatterns: list[URLPattern] = [re_path(rf"^{name}/?$", view, name=f"v2_{name}") for name, view in _CALLS.items()]
urlpatterns.append(re_path("", unknown_call))
