"""Options that several programs have: one spelling and one help text for each."""

from pathlib import Path

from turku.core.cli.arguments import count, number
from turku.core.cli.program import Argument

LARGEST_LIMIT = 10_000_000
_LONGEST_WAIT_SECONDS = 7 * 86_400

DEBUG = Argument("--debug", action="store_true", help="Log details, and show where an error came from.")
JSON = Argument("--json", action="store_true", help="Print a JSON array, for programs.")
JSON_OBJECT = Argument("--json", action="store_true", help="Print a JSON object, for programs.")
AT = Argument(
    "--at", metavar="TIME", help="Use the latest snapshot at that time: '3 days ago', 'yesterday', '2026-11-01 12:00'."
)
DRY_RUN = Argument("--dry-run", "-n", action="store_true", help="Show what would be done, and change nothing.")
YES = Argument("--yes", "-y", action="store_true", help="Do it without asking.")
WAIT = Argument(
    "--wait",
    "-w",
    type=number("seconds", _LONGEST_WAIT_SECONDS),
    default=0.0,
    metavar="SECONDS",
    help="Sleep a random part of this time first, so that not all of them arrive at once.",
)
REGISTRATION = (
    Argument("--api-auth-name", metavar="NAME", help="Name of the Auth to register with."),
    Argument(
        "--api-auth-secret",
        metavar="SECRET",
        help="Secret of the Auth. Other users can see a command line: prefer the configuration.",
    ),
)


def config_dir(default: Path, *, holds: str) -> Argument:
    """Return ``--config-dir``. ``holds`` says what the directory holds."""
    shown = f"Directory that holds {holds} (default: %(default)s)."
    return Argument("--config-dir", "-c", type=Path, default=default, metavar="DIR", help=shown)


def limit(default: int | None) -> Argument:
    """Return ``--limit``, with this default (None: all rows)."""
    shown = "all" if default is None else "%(default)s"
    return Argument(
        "--limit",
        type=count(LARGEST_LIMIT),
        default=default,
        metavar="ROWS",
        help=f"Print at most this many rows (default: {shown}).",
    )
