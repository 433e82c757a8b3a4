"""The action "Back up now" of the admin lists of machines and sources."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest

from turku.api.audit import log
from turku.api.backups.backup_now import back_up_now, silent_sentence
from turku.api.backups.models import Source


def tell_back_up_now(page: Any, request: HttpRequest, sources: QuerySet[Source], *, now: datetime) -> None:
    """Make the sources due, and tell the person how many and which machines will not come for them."""
    count = back_up_now(sources, actor=log.person(request.user), now=now)
    due = "1 source is due now; its machine's next ping starts it."
    if count != 1:
        due = f"{count} sources are due now; their machines' next pings start them."
    page.message_user(request, due)
    silent = silent_sentence(sources, now=now)
    if silent:
        page.message_user(request, silent, messages.WARNING)
