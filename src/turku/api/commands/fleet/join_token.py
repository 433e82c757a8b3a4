"""`turku-api join-token`: words with which new machines and storages set themselves up."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from django.utils import timezone

from turku.api.audit import log
from turku.api.commands.setup import configured
from turku.api.configuration.tls.certificate_files import read_certificate
from turku.api.fleet.identity import auths, join_tokens
from turku.api.fleet.models import Auth, AuthKind, Machine, Storage
from turku.core.cli import listing, options
from turku.core.cli.arguments import count, number
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command, CommandGroup, OneOf
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of
from turku.errors import UsageError
from turku.protocol.certificate import Fingerprint
from turku.protocol.join_token import JoinKind

_MOST_USES = 100_000
_MOST_DAYS = 3660
_NAMED = 3
"""Machines and storages that a row of the list names."""
_PROGRAMS = {JoinKind.MACHINE: "turku-agent", JoinKind.STORAGE: "turku-storage"}


def _create(parsed: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    kind = JoinKind(parsed.kind)
    lifetime = join_tokens.DEFAULT_LIFETIME
    if parsed.days is not None or parsed.hours is not None:
        lifetime = timedelta(days=parsed.days or 0, hours=parsed.hours or 0)
    issued = join_tokens.create(
        kind,
        uses=None if parsed.unlimited else parsed.uses or join_tokens.DEFAULT_USES[kind],
        ends=None if parsed.no_end else now + lifetime,
        note=parsed.note,
        name=parsed.name,
        url=parsed.url,
        key_fingerprints=_key_fingerprints(parsed),
        now=now,
    )
    word = issued.word.reveal()
    if parsed.raw:
        say(word)
        return 0
    say(
        f"Join token {issued.auth.name}, for {_sentence(issued.auth, kind)}.\n"
        f"It is shown this once. Whoever has it registers a {kind.value} here.\n"
        f"On the new {kind.value}, run:\n\n{_PROGRAMS[kind]} setup {word}"
    )
    return 0


def _key_fingerprints(parsed: argparse.Namespace) -> Sequence[str] | None:
    """Return the fingerprints for the token, or None for those of the coordinator's own certificate."""
    if parsed.certificate is not None:
        return [read_certificate(parsed.certificate).key_fingerprint]
    given: Sequence[str] | None = parsed.pin_key
    return given


def _fingerprint(text: str) -> str:
    try:
        return msgspec.convert(text, Fingerprint)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fingerprint such as SHA256:...") from None


def _sentence(auth: Auth, kind: JoinKind) -> str:
    uses = f"any number of {kind.value}s" if auth.uses_limit is None else count_of(auth.uses_limit, kind.value)
    return f"{uses}, " + ("without an end" if auth.date_ends is None else f"until {_moment(auth.date_ends)}")


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


def _list(parsed: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    rows = list(Auth.objects.order_by("-date_added", "-pk"))
    if parsed.json:
        listing.array((_as_json(row, now=now) for row in rows), say)
        return 0
    headings = ("name", "kind", "state", "used", "ends", "registered", "note")
    listing.show(
        headings,
        (_row(row, now=now) for row in rows),
        say,
        right=("used",),
        drop=("note", "registered"),
        empty="no join token was made yet",
    )
    return 0


def _row(auth: Auth, *, now: datetime) -> Sequence[str]:
    used = f"{auth.uses_count}" if auth.uses_limit is None else f"{auth.uses_count}/{auth.uses_limit}"
    names = list(_registered(auth, limit=_NAMED + 1))
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    state = auths.state(auth, now=now).value
    return auth.name, join_tokens.kind_of(auth).value, state, used, _moment(auth.date_ends), shown, auth.comment


def _as_json(auth: Auth, *, now: datetime) -> dict[str, Any]:
    return {
        "name": auth.name,
        "kind": join_tokens.kind_of(auth).value,
        "state": auths.state(auth, now=now).value,
        "uses": auth.uses_limit,
        "used": auth.uses_count,
        "added": auth.date_added.isoformat(),
        "ends": auth.date_ends.isoformat() if auth.date_ends else None,
        "note": auth.comment,
        "registered": list(_registered(auth)),
    }


def _registered(auth: Auth, *, limit: int | None = None) -> Iterator[str]:
    """Yield the names of what registered with it and is still known, oldest first."""
    model = Machine if auth.kind == AuthKind.MACHINE else Storage
    yield from map(str, model._default_manager.filter(auth=auth).order_by("date_registered", "pk")[:limit])


def _revoke(parsed: argparse.Namespace, say: Say) -> int:
    found = Auth.objects.filter(name=parsed.name)
    if parsed.kind:
        found = found.filter(kind=join_tokens.AUTH_KINDS[JoinKind(parsed.kind)])
    rows = list(found)
    if not rows:
        raise UsageError(f"there is no join token {parsed.name!r}", hint="turku-api join-token list names them")
    if len(rows) > 1:
        raise UsageError(
            f"a machine's and a storage's join token have the name {parsed.name!r}",
            hint="add --kind machine or storage",
        )
    auths.revoke(rows[0], actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"{parsed.name} registers nobody any more. What registered with it stays: see turku-api join-token list.")
    return 0


_KINDS = tuple(kind.value for kind in JoinKind)

COMMANDS = (
    CommandGroup(
        "join-token",
        "Make, list or revoke join tokens: words with which new machines and storages set themselves up.",
        (
            Command(
                "create",
                "Print a new join token, once.",
                configured(_create),
                (
                    ("Let in machines until this time tomorrow:", "{prog} machine"),
                    ("Let in one storage within an hour:", "{prog} storage --hours 1 --note 'second site'"),
                    ("Print only the token, for a script:", "{prog} machine --uses 1 --raw"),
                ),
                (
                    Argument("kind", choices=_KINDS, metavar="KIND", help="Kind: machine or storage."),
                    OneOf(
                        Argument(
                            "--uses",
                            type=count(_MOST_USES),
                            metavar="N",
                            help="Registrations that it allows (default: "
                            + ", ".join(count_of(uses, kind.value) for kind, uses in join_tokens.DEFAULT_USES.items())
                            + ").",
                        ),
                        Argument("--unlimited", action="store_true", help="Allow any number of registrations."),
                    ),
                    OneOf(
                        Argument(
                            "--hours",
                            type=number("hours", _MOST_DAYS * 24, above_least=True),
                            metavar="N",
                            help="End it after this many hours (default: "
                            f"{join_tokens.DEFAULT_LIFETIME.total_seconds() / 3600:g}).",
                        ),
                        Argument(
                            "--days",
                            type=number("days", _MOST_DAYS, above_least=True),
                            metavar="N",
                            help="End it after this many days.",
                        ),
                        Argument("--no-end", action="store_true", help="Never end it."),
                    ),
                    Argument("--name", default="", metavar="NAME", help="Name of the token (default: made up)."),
                    Argument("--note", default="", metavar="TEXT", help="Note for the list of tokens."),
                    Argument(
                        "--url",
                        default="",
                        metavar="URL",
                        help="Address of the coordinator (default: TURKU_URL, or the first of TURKU_ALLOWED_HOSTS).",
                    ),
                    OneOf(
                        Argument(
                            "--pin-key",
                            action="append",
                            type=_fingerprint,
                            metavar="FINGERPRINT",
                            help="Pin this key of the coordinator or its proxy (default: that of the certificate which "
                            "the coordinator made itself). Can be given several times.",
                        ),
                        Argument(
                            "--certificate", type=Path, metavar="FILE", help="Pin the key of a proxy's certificate."
                        ),
                    ),
                    Argument("--raw", action="store_true", help="Print the token and nothing else."),
                ),
            ),
            Command(
                "list",
                "List the join tokens and all other Auths, newest first, without their secrets.",
                configured(_list),
                (
                    ("List them:", "{prog}"),
                    ("List those that still let somebody in:", "{prog} | grep -w open"),
                    ("Name what registered with one:", "{prog} --json | grep machine-2026-11-30"),
                ),
                (options.JSON,),
            ),
            Command(
                "revoke",
                "Let a join token, or another Auth, register nobody any more.",
                configured(_revoke),
                (
                    ("Revoke a token:", "{prog} machine-2026-11-30-k3v9xq"),
                    ("Revoke a token of storages:", "{prog} 'second site' --kind storage"),
                    ("Revoke it, and see who registered with it:", "{prog} office && turku-api join-token list"),
                ),
                (
                    Argument("name", metavar="NAME", help="Name, as 'list' shows it."),
                    Argument("--kind", choices=_KINDS, metavar="KIND", help="Kind: machine or storage."),
                ),
            ),
        ),
        (
            ("Let in machines until this time tomorrow:", "{prog} create machine"),
            ("See who registered with which token:", "{prog} list"),
            ("Revoke a token:", "{prog} revoke machine-2026-11-30-k3v9xq"),
        ),
    ),
)
