"""How a session's request is bounded on standard input (contract, section 4); few imports: a session begins with it."""

from __future__ import annotations

from typing import Final

SESSION_REQUEST_END: Final = b"."
"""The line that ends a request."""
SESSION_REQUEST_LIMIT_BYTES: Final = 256 * 1024
SESSION_REQUEST_TIMEOUT_SECONDS: Final = 30.0
HISTORY_ACTIONS: Final = ("browse", "restore_files")
"""The actions of a ``restore_messages.HistoryRequest``; the others are the contract's, of a ``SessionRequest``."""
GO: Final = b"go"
"""The line by which the agent lets the storage write, after it has seen the plan."""
