"""Descriptions of restore requests, for people and for programs."""

from base64 import b64decode
from typing import Any

from turku.api.restores.models import RequestState, RestoreRequest
from turku.core.cli.listing import iso_moment
from turku.core.log import one_line

_SHOWN_PATHS = 3


def path_text(path: Any) -> str:
    r"""Return a stored path for people. Bytes that are not UTF-8 are shown as ``\xe4``."""
    if isinstance(path, str):
        return path
    return b64decode(path["b64"]).decode("utf-8", "backslashreplace")


def subject_text(request: RestoreRequest) -> str:
    """Return the subject of a request: ``etc``, ``etc: ssh/sshd_config, hosts and 3 more (as of ...)``."""
    paths = [path_text(path) for path in request.paths]
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    named = f": {', '.join(paths[:_SHOWN_PATHS])}{more}" if paths else ""
    as_of = f"as of {iso_moment(request.moment, has_zone=True)}" if request.moment else ""
    of = f" ({request.snapshot or as_of})" if request.snapshot or as_of else ""
    return one_line(f"{request.source.name}{named}{of}")


def progress_text(request: RestoreRequest) -> str:
    """Return the progress, such as ``1,200 of 5,000 files, 24%``, or an empty text before the first file."""
    if not request.files and not request.files_total:
        return ""
    of = f" of {request.files_total:,}" if request.files_total else ""
    share = ""
    if request.size_total_bytes:
        share = f", {min(100, 100 * request.size_bytes // request.size_total_bytes)}%"
    return f"{request.files:,}{of} files{share}"


def waiting_reason(request: RestoreRequest) -> str:
    """Return the visible reason for which a waiting request is not picked up, or an empty text."""
    if request.state != RequestState.WAITING or request.date_approved is None:
        return ""
    target = request.target
    if request.attempts:
        return f"postponed by the machine: {request.message}" if request.message else "postponed by the machine"
    if not target.active:
        return "the machine is switched off here"
    storage = request.source.machine.storage
    if storage is None or not storage.active:
        return "the source's storage is gone or switched off"
    if target.date_checked_in is None or target.date_checked_in <= request.date_approved:
        return "the machine has not checked in since"
    return (
        "the machine has checked in since and did not pick it up: an agent of the existing system never does, "
        "ours does with its next ping"
    )


def reason_text(request: RestoreRequest) -> str:
    """Return the reason for which a request waits for its machine or was not done whole, or an empty text."""
    if request.state in (RequestState.PARTIAL, RequestState.FAILED, RequestState.REFUSED):
        return request.message.partition("\n")[0]
    return waiting_reason(request)


def _values(request: RestoreRequest, *names: str) -> dict[str, Any]:
    return {name: getattr(request, name) for name in names}


def terms(request: RestoreRequest) -> dict[str, Any]:
    """Return the terms of a request: snapshot, paths, target directory, reason and number of approvals."""
    subject = _values(request, "snapshot", "moment", "paths", "directory", "overwrite")
    return subject | _values(request, "reason", "approvals_needed")


def message_fields(request: RestoreRequest) -> dict[str, Any]:
    """Return the fields of a request as programs receive them."""
    dates = ("requested", "first_approval", "second_approval", "expires", "picked_up", "progress", "ended")
    moments = _values(request, *(f"date_{name}" for name in dates))
    return {
        "id": str(request.pk),
        "state": request.state,
        "machine": {"uuid": str(request.source.machine.uuid), "name": str(request.source.machine)},
        "source": request.source.name,
        "onto": {"uuid": str(request.target.uuid), "name": str(request.target)},
        **terms(request),
        "requested_by": request.requested_by,
        "approved_by": list(request.approvers),
        **_values(request, "ended_by", "files", "size_bytes", "files_total", "size_total_bytes"),
        **_values(request, "resolved_snapshot", "restored_snapshot", "message"),
        "why_waiting": waiting_reason(request),
        **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
    }
