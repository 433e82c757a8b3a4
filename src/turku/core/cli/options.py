"""Options that several programs have: one spelling and one help text for each."""

from __future__ import annotations

from pathlib import Path

from turku.core.cli.arguments import Parser, count, number

DEFAULT_LIMIT = 10_000
LARGEST_LIMIT = 10_000_000
_LONGEST_WAIT_SECONDS = 7 * 86_400


def add_common(parser: Parser, *, default_directory: Path, holds: str) -> None:
    """Add ``--config-dir`` and ``--debug``."""
    parser.common.add_argument(
        "--config-dir",
        "-c",
        type=Path,
        default=default_directory,
        metavar="DIR",
        help=f"Directory that holds {holds} (default: %(default)s).",
    )
    parser.common.add_argument("--debug", action="store_true", help="Log details, and show where an error came from.")


def add_json(parser: Parser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="Print a JSON array, for programs.")


def add_limit(parser: Parser) -> None:
    """Add ``--limit``."""
    parser.add_argument(
        "--limit",
        type=count(LARGEST_LIMIT),
        default=DEFAULT_LIMIT,
        metavar="ROWS",
        help="Print at most this many rows (default: %(default)s).",
    )


def add_at(parser: Parser) -> None:
    """Add ``--at``."""
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="Use the latest snapshot at that time: '2026-11-01 12:00', 'yesterday', '3 days ago'.",
    )


def add_dry_run(parser: Parser) -> None:
    """Add ``--dry-run``."""
    parser.add_argument("--dry-run", "-n", action="store_true", help="Show what would be done, and change nothing.")


def add_yes(parser: Parser) -> None:
    """Add ``--yes``."""
    parser.add_argument("--yes", "-y", action="store_true", help="Do it without asking.")


def add_wait(parser: Parser) -> None:
    """Add ``--wait``."""
    parser.add_argument(
        "--wait",
        "-w",
        type=number("seconds", _LONGEST_WAIT_SECONDS),
        default=0.0,
        metavar="SECONDS",
        help="Sleep a random part of this time first, so that not all of them arrive at once.",
    )


def add_registration(parser: Parser) -> None:
    """Add ``--api-auth-name`` and ``--api-auth-secret``."""
    parser.add_argument("--api-auth-name", metavar="NAME", help="Name of the Auth to register with.")
    parser.add_argument(
        "--api-auth-secret",
        metavar="SECRET",
        help="Secret of the Auth. Other users can see a command line: prefer the configuration.",
    )
