"""The answers of a storage to a machine, collected without a session.

answers = CollectedAnswers()
browse.show(view, request, answers.answers)
answers.read()
"""

import tempfile
from typing import Any

from turku.protocol import codec
from turku.protocol.jsonlines import JsonLines
from turku.protocol.restore_messages import Answer


class CollectedAnswers:
    """Answers that go into a file without a name: what takes them has to be a descriptor."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (gone with this object)
        self.answers = JsonLines(self._file)

    def read(self) -> list[Any]:
        """Return the answers, in their order."""
        self._file.seek(0)
        lines = self._file.read().splitlines()
        return [codec.decode(line, Answer, limit_bytes=2**20) for line in lines]  # type: ignore[arg-type]
