"""Batched writes to rows that were read and locked before."""

from collections.abc import Collection, Sequence
from typing import TypeVar

from django.db.models import Model

Row = TypeVar("Row", bound=Model)


def save_columns(rows: Sequence[Row], columns: Collection[str]) -> None:
    """Write these columns of rows that exist, in few statements.

    It is an insertion that conflicts with the existing rows. Django's ``bulk_update`` takes ten times as long, and the
    rows are locked meanwhile.
    """
    if rows and columns:
        type(rows[0])._default_manager.bulk_create(
            rows, update_conflicts=True, unique_fields=["id"], update_fields=sorted(columns)
        )
