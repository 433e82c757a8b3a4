"""The catalog of a source: which version of which path is in which snapshot.

``record`` writes a new snapshot into it just before the snapshot gets its name, and ``open_catalog`` opens it for
reading. ``database`` tells where its file lies, and why there.
"""

from turku.storage.catalog.entry import CatalogEntry, Difference, EntryKind
from turku.storage.catalog.opening import open_catalog, update
from turku.storage.catalog.reader import Catalog, CatalogedSnapshot
from turku.storage.catalog.scope import WHOLE, Scope
from turku.storage.catalog.snapshot_choice import LATEST, choose
from turku.storage.catalog.streaming import StreamingIndexer, stream_index
from turku.storage.catalog.sync import forget, rebuild, record

__all__ = [
    "LATEST",
    "WHOLE",
    "Catalog",
    "CatalogEntry",
    "CatalogedSnapshot",
    "Difference",
    "EntryKind",
    "Scope",
    "StreamingIndexer",
    "choose",
    "forget",
    "open_catalog",
    "rebuild",
    "record",
    "stream_index",
    "update",
]
