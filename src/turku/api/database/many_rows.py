"""Writing many rows that were read and locked before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from django.db.models import Model

Row = TypeVar("Row", bound=Model)


def save_columns(rows: Sequence[Row], columns: Collection[str]) -> None:
    """Write these columns of rows that exist, in few statements.

    As an insertion that meets its own rows: Django's ``bulk_update`` takes a second for what this does in a tenth of
    it, and it is done while rows are locked.
    """
    if rows and columns:
        type(rows[0])._default_manager.bulk_create(
            rows, update_conflicts=True, unique_fields=["id"], update_fields=sorted(columns)
        )
