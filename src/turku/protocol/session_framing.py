"""The framing of a session's request on standard input (contract, "A backup session").

It imports little, for a fast start.
"""

from typing import Final

SESSION_REQUEST_END: Final = b"."
"""The line that ends a request."""
SESSION_REQUEST_LIMIT_BYTES: Final = 256 * 1024
SESSION_REQUEST_TIMEOUT_SECONDS: Final = 30.0
HISTORY_ACTIONS: Final = ("browse", "restore_files")
"""Actions of a ``restore_messages.HistoryRequest``. The contract's actions are those of a ``SessionRequest``."""
GO: Final = b"go"
"""The line by which the agent approves the plan and lets the storage write."""
