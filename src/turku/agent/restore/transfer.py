"""The transfer of a restore: the storage sends files and answers until its rsync ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from turku.agent.restore.placement.sparse_files import SparseFiles
from turku.agent.restore.placement.unsupported_attributes import UnsupportedAttributes
from turku.agent.restore.plan import PlannedRestore
from turku.agent.restore.progress import RestoreProgress
from turku.agent.restore.staging.prepared_target import PreparedTarget
from turku.agent.restore.verification import Verification
from turku.errors import TurkuError
from turku.protocol.restore_messages import Answer, Manifest, RestoreEnd, RestorePlan, Unset, WithHoles

_LOG = logging.getLogger(__name__)


@dataclass
class RestoreTransfer:
    """The part of an attempt in which the storage sends files."""

    plan: RestorePlan
    planned: PlannedRestore
    target: PreparedTarget
    verification: Verification
    begin: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False

    def progress(self) -> RestoreProgress:
        """Return the progress so far."""
        return RestoreProgress(
            files=self.verification.files,
            size_bytes=self.verification.size_bytes,
            files_total=self.planned.files,
            size_total_bytes=self.planned.size_bytes,
            seconds=time.monotonic() - self.begin,
        )


class AnswerReader(threading.Thread):
    """Reads the storage's answers to their end."""

    def __init__(
        self,
        answers: Iterator[Answer],
        verification: Verification,
        sparse_files: SparseFiles,
        unsupported: UnsupportedAttributes,
    ) -> None:
        super().__init__(name="restore answers", daemon=True)
        self.end: RestoreEnd | None = None
        self.problem: TurkuError | None = None
        """The reason for which the restore ends before its end: an answer, or a limit that the storage exceeded."""
        self._answers = answers
        self._verification = verification
        self._sparse_files = sparse_files
        self._unsupported = unsupported

    def run(self) -> None:
        try:
            for answer in self._answers:
                self._take(answer)
                if self.end is not None:
                    return
        except TurkuError as error:
            # The first problem counts: an answer that is cut off is a consequence of it.
            self.problem = self.problem or error
        except (OSError, ValueError) as error:
            _LOG.debug("the storage's answers ended: %s", error)

    def _take(self, answer: Answer) -> None:
        # ``Deleted`` answers are ignored, because the placement counts what it deletes.
        if isinstance(answer, Manifest):
            for entry in answer.entries:
                self._verification.expect(entry)
        elif isinstance(answer, WithHoles):
            self._sparse_files.add(answer.paths)
        elif isinstance(answer, Unset):
            for unset in answer.entries:
                self._unsupported.add(unset)
        elif isinstance(answer, RestoreEnd):
            self.end = answer
