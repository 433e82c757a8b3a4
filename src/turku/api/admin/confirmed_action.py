"""Actions of lists that ask for more, and for a confirmation, on a page of their own before they are carried out."""

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from turku.errors import TurkuError

_SHOWN = 100


def confirmed(
    page: Any,
    request: HttpRequest,
    queryset: QuerySet[Any],
    form_class: type[forms.Form],
    carry_out: Callable[[Sequence[Any], dict[str, Any]], str],
    *,
    title: str,
) -> TemplateResponse | None:
    """Show the form for these rows, or carry the action out where it was filled in, and show the returned sentence."""
    rows: list[Model] = list(queryset)
    is_sent = "confirmed" in request.POST
    form = form_class(request.POST if is_sent else None)
    if is_sent and form.is_valid():
        try:
            page.message_user(request, carry_out(rows, form.cleaned_data), messages.SUCCESS)
        except TurkuError as error:
            page.message_user(request, error.sentence, messages.ERROR)
        return None
    context = {
        **page.admin_site.each_context(request),
        "title": title,
        "opts": page.opts,
        "form": form,
        "rows": rows[:_SHOWN],
        "more": max(len(rows) - _SHOWN, 0),
        "keys": [row.pk for row in rows],
        "checkbox": ACTION_CHECKBOX_NAME,
        "action": request.POST["action"],
    }
    return TemplateResponse(request, "turku/confirm_action.html", context)
