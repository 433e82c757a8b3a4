"""The output of the demo: numbered steps with their times, readable with and without colours."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from turku.core.cli.output import unguarded
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.log import one_line
from turku.core.secret import Secret

Say = Callable[[str], None]


class Narrator:
    """A writer of lines to standard output, which is readable as a log, too."""

    def __init__(self, console: Console | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        # soft_wrap: paths are meant to be copied, so we break no line.
        self._console = console or Console(file=unguarded(sys.stdout), highlight=False, soft_wrap=True)
        self._clock = clock
        self._count = 0

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(one_line(text), style=style), soft_wrap=True)

    def begin(self, directory: Path, versions: str) -> None:
        """Say what will happen."""
        self._line("Turku demo: a coordinator, a storage and a machine to back up, all on this computer.", "bold")
        self._line(f"Everything lies below {directory}, which only you can enter.")
        self._line(f"It runs {versions}.")
        self._line("")

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """Announce a step, let the block report on it, then show its time."""
        self._count += 1
        self._line(f"{self._count}. {title}", "bold")
        begun = self._clock.monotonic_seconds()
        yield lambda text: self._line(f"   {text}")
        self._line(f"   done in {self._clock.monotonic_seconds() - begun:.1f} s", "green")

    def end(self, seconds: float) -> None:
        """Say that all went well."""
        self._line("")
        self._line(f"Success: backed up twice and restored, in {seconds:.1f} s.", "bold green")

    def places(self, places: Mapping[str, Path], *, kept: bool) -> None:
        """Show the paths of all parts."""
        self._line("")
        self._line("Where things lie:" if kept else "Where things lay (removed now; --keep keeps them to look at):")
        width = max(map(len, places))
        for name, path in places.items():
            self._line(f"   {name:<{width}}  {path}")

    def invite(
        self, url: str, user: str, password: Secret, *, every_seconds: float, commands: Mapping[str, str]
    ) -> None:
        """Suggest what to try while it runs. ``commands`` maps descriptions to commands."""
        self._line("")
        self._line("Look around in the admin site:", "bold")
        self._line(f"   address    {url}")
        self._line(f"   user name  {user}")
        # Shown on purpose, only to the person who started the demo. The account ends with it.
        self._line(f"   password   {password.reveal()}")
        self._line(f"   Choose 'Back up now' for the source there: the machine asks every {every_seconds:.0f} s.")
        self._line("")
        self._line("Or try it by hand, in another terminal:", "bold")
        for purpose, command in commands.items():
            self._line(f"   {purpose}:")
            self._line(f"      {command}")
        self._line("")
        self._line("Running until you press Ctrl-C; then everything is ended and removed.", "bold")

    def note(self, text: str) -> None:
        """Say something between the steps."""
        self._line(text)
