"""Health marks, times and links as lists show them."""

import json
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from turku.api.audit import log
from turku.api.audit.models import AuditEntry
from turku.api.status.marks import Mark
from turku.core.units import rough_duration

NOTHING = "-"
_COLUMN_LETTERS = 80


def mark(value: str) -> SafeString:
    """Return the mark as a word in a coloured frame. The word says everything that the colour does."""
    known = Mark(value)
    return format_html('<span class="mark mark-{}">{}</span>', known.value, known.label)


def mark_with_reason(value: str, reason: str, next_step: str = "") -> SafeString:
    """Return the mark and the beginning of its reason for a list.

    The title holds the whole reason and the next step.
    """
    if not reason and not next_step:
        return mark(value)
    beginning = reason if len(reason) <= _COLUMN_LETTERS else f"{reason[:_COLUMN_LETTERS].rstrip()}..."
    title = "\n".join(filter(None, (reason, next_step)))
    return format_html('<span title="{}">{} {}</span>', title, mark(value), beginning)


def moment(value: datetime | None, *, now: datetime) -> SafeString | str:
    """Return a relative time, ``3 h ago`` or ``in 5 min``, with the exact time as its title."""
    if value is None:
        return NOTHING
    words = f"{rough_duration(now - value)} ago" if value <= now else f"in {rough_duration(value - now)}"
    local = timezone.localtime(value)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', value.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %Z}", words
    )


def due(value: datetime | None, *, now: datetime) -> SafeString | str:
    """Return the time as ``moment`` does, and mark a past one as due."""
    if value is None or value > now:
        return moment(value, now=now)
    return format_html("due {}", moment(value, now=now))


def shortened(text: str) -> SafeString | str:
    """Return the text for a column of a list, with the whole text as its title."""
    if len(text) <= _COLUMN_LETTERS:
        return text
    return format_html('<span title="{}">{}...</span>', text, text[:_COLUMN_LETTERS].rstrip())


def versions(row: Any) -> str:
    """Return the versions of the programs of a machine or storage, one a line."""
    return "\n".join(f"{name} {version}" for name, version in row.versions.items())


def values(fields: dict[str, Any]) -> SafeString:
    """Return the values of fields, one a line."""
    return format_html("<pre>{}</pre>", json.dumps(fields, indent=2, ensure_ascii=False))


def change_link(row: Model | None) -> SafeString | str:
    """Return a link to the page of one object."""
    if row is None:
        return NOTHING
    options = row._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', address, row)


def list_link(model: type[Model], text: Any, **lookups: Any) -> SafeString:
    """Return a link to the list of some objects of a model."""
    options = model._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
    return format_html('<a href="{}?{}">{}</a>', address, urlencode(lookups), text)


def audit_link(row: Model) -> SafeString:
    """Return a link to what happened to an object."""
    return list_link(AuditEntry, "what happened to it", subject_key=log.subject_key(row))


def audit_links(row: Model) -> SafeString:
    """Return links to the actions of a machine or storage, and to what happened to it."""
    did = list_link(AuditEntry, "what it did", actor=log.subject_key(row))
    return format_html("{}, {}", did, audit_link(row))
