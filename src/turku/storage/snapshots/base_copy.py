"""The copy of the base snapshot by hard links, made in the background while rsync fetches the differences."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from turku.core.cancellation import NEVER, Cancellation
from turku.errors import TurkuError
from turku.storage.fs import hardlink_copy

_CHECK_SECONDS = 0.2
_LOG = logging.getLogger(__name__)


class IncrementalFailed(Exception):
    """The tree cannot be assembled from the base. It is of no use, and nothing else was changed."""


class HardlinkCopy:
    """A copy of the tree ``base`` by hard links. A context manager that ends a copy that is not finished."""

    def __init__(self, base: Path, tree: Path, check_limits: Callable[[int], None] = lambda _directories: None) -> None:
        """``check_limits`` is called now and then with the number of new directories. It raises to stop the copy."""
        self.tree = tree
        self.directories = 0
        """The number of directories made so far. Nothing else takes space of its own."""
        self._base = base
        self._check_limits = check_limits
        self._refusal: TurkuError | None = None
        self._begun = threading.Event()
        self._is_over = threading.Event()
        self._failure: str | None = "it was ended"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def end(self) -> None:
        """End the copy if it is running. Repeated calls do no harm."""
        self._is_over.set()
        self._begun.set()
        self._thread.join()

    def begin(self) -> None:
        """Begin the copy in the background. Any thread may call this, repeatedly."""
        self._begun.set()

    def finish(self, cancellation: Cancellation = NEVER) -> None:
        """Wait until the copy is complete.

        Raises IncrementalFailed, for instance on a file system without hard links, and whatever ``cancellation`` and
        ``check_limits`` raise.
        """
        self.begin()
        while self._thread.is_alive():
            self._thread.join(_CHECK_SECONDS)
            cancellation.check()
        if self._refusal is not None:
            raise self._refusal
        if self._failure is not None:
            raise IncrementalFailed(f"the base cannot be copied by hard links: {self._failure}")

    def _run(self) -> None:
        self._begun.wait()
        if self._is_over.is_set():
            return
        try:
            hardlink_copy.link_tree(self._base, self.tree, self._may_continue)
        except hardlink_copy.CopyStopped:
            return
        except OSError as error:
            self._failure = f"{error.strerror or error}: {error.filename!r}"
        except TurkuError as error:
            self._failure = error.message
        except Exception as error:
            _LOG.exception("the base cannot be copied by hard links")
            self._failure = f"internal error: {type(error).__name__}: {error}"
        else:
            self._failure = None

    def _may_continue(self, directories: int) -> bool:
        self.directories = directories
        try:
            self._check_limits(directories)
        except TurkuError as error:
            self._refusal = error
            return False
        return not self._is_over.is_set()
