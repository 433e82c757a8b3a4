"""The columns of admin lists whose rows are about one source each."""

from __future__ import annotations

from typing import Any

from django.contrib import admin

from turku.api.admin import presentation


class OfSource:
    """For a model with a ``source``, and a ``storage`` where its list names that column."""

    @admin.display(description="source", ordering="source__name")
    def source_link(self, row: Any) -> str:
        return presentation.change_link(row.source)

    @admin.display(description="machine", ordering="source__machine__unit_name")
    def machine_link(self, row: Any) -> str:
        return presentation.change_link(row.source.machine)

    @admin.display(description="storage", ordering="storage__name")
    def storage_link(self, row: Any) -> str:
        return presentation.change_link(row.storage)
