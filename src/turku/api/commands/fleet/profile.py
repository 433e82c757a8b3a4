"""`turku-api profile`: sources that groups of machines are offered."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec
from django.utils import timezone

from turku.api.audit import log
from turku.api.backups.profiles import changes, document, preview
from turku.api.backups.profiles.models import MachineProfile
from turku.api.backups.profiles.outcome import outcome_of
from turku.api.backups.profiles.preview import ProfilePreview
from turku.api.commands.fleet import questions
from turku.api.commands.setup import configured
from turku.core.cli import listing as table
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.core.units import count_of
from turku.errors import InvalidValue, UsageError

_LIMIT_BYTES = 1024 * 1024


def _read(name: str) -> MachineProfile:
    """Return the checked profile in a file, or on standard input. Raises UsageError."""
    shown = "standard input" if name == "-" else one_line(name)
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_LIMIT_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                content = stream.read(_LIMIT_BYTES + 1)
        if len(content) > _LIMIT_BYTES:
            raise UsageError(f"{shown} is larger than {_LIMIT_BYTES} bytes")
        return document.to_profile(document.read(content.decode("utf-8"), suffix=Path(name).suffix))
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown} is not text in UTF-8 (byte {error.start})") from None
    except InvalidValue as error:
        raise UsageError(f"{shown}: {error.message}", hint=error.hint) from None


def _named(name: str) -> MachineProfile:
    """Return the profile of that name. Raises UsageError."""
    found = MachineProfile.objects.select_related("auth").filter(name=name).first()
    if found is None:
        known = ", ".join(MachineProfile.objects.values_list("name", flat=True)[:20])
        raise UsageError(f"there is no profile {one_line(name)!r}", hint=f"there is {known or 'none yet'}")
    return found


def _preview(options: argparse.Namespace, say: Say) -> int:
    effect = preview.of_change(_read(options.file))
    if options.json:
        say(json_text(msgspec.to_builtins(effect), indent=4))
    else:
        _say_effect(effect, say)
    return 0


def _set(options: argparse.Namespace, say: Say) -> int:
    profile = _read(options.file)
    effect = preview.of_change(profile)
    _say_effect(effect, say)
    questions.require_approval(f"Save profile {profile.name}?", is_given=options.yes)
    changes.save(profile, effect, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"Profile {profile.name} is saved. Machines that accept profiles take it at their next checkin.")
    return 0


def _remove(options: argparse.Namespace, say: Say) -> int:
    profile = _named(options.profile)
    _say_effect(preview.of_removal(profile), say)
    questions.require_approval(f"Remove profile {profile.name}?", is_given=options.yes)
    changes.remove(profile, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(
        f"Profile {profile.name} is removed. Its sources are withdrawn at the next checkin of each machine. Their "
        "history stays, and health names them until you confirm it: turku-api machine confirm-withdrawal"
    )
    return 0


def _say_effect(effect: ProfilePreview, say: Say) -> None:
    for line in preview.lines(effect):
        say(line)


def _list(options: argparse.Namespace, say: Say) -> int:
    rows: list[dict[str, Any]] = []
    for profile in MachineProfile.objects.select_related("auth"):
        outcome = outcome_of(profile)
        rows.append(
            {
                "profile": profile.name,
                "machines": outcome.machines,
                "taken_by": outcome.taking,
                "refused_by": outcome.refusing,
                "sources": sorted(profile.sources),
                "for": document.group_text(profile),
                "changed": profile.date_changed.isoformat(),
            }
        )
    if options.json:
        say(json_text(rows, indent=4))
        return 0
    table.show(
        ("profile", "for", "machines", "taken by", "refused by", "sources"),
        (
            (
                *(row["profile"], row["for"], f"{row['machines']:,}", f"{row['taken_by']:,}"),
                *(f"{row['refused_by']:,}", ", ".join(row["sources"])),
            )
            for row in rows
        ),
        say,
        right=("machines", "taken by", "refused by"),
        drop=("sources",),
        empty="There is no profile.",
    )
    return 0


def _show(options: argparse.Namespace, say: Say) -> int:
    profile = _named(options.profile)
    content = msgspec.to_builtins(document.to_document(profile))
    if options.document:
        say(json_text(content, indent=4))
        return 0
    outcome = outcome_of(profile)
    if options.json:
        say(json_text({"profile": content, "outcome": msgspec.to_builtins(outcome)}, indent=4))
        return 0
    changed = f"{timezone.localtime(profile.date_changed):%Y-%m-%d %H:%M}"
    say(f"Profile {profile.name}, for {document.group_text(profile)}, changed {changed}")
    if profile.comment:
        say(profile.comment)
    say(
        f"Offered to {count_of(outcome.machines, 'machine')}: taken by {outcome.taking:,}, refused by "
        f"{outcome.refusing:,}, {outcome.not_accepting:,} accept no profiles"
    )
    for name, source in sorted(document.complete(profile).items()):
        say(f"  {one_line(name)}")
        for key, value in source.items():
            say(f"    {one_line(f'{key}: {value}')}")
    for each in outcome.refusals:
        say(f"  refused on {one_line(each.machine)}: {one_line(each.source)}: {one_line(each.reason)}")
    if outcome.refusing > len(outcome.refusals):
        say("  (more machines refuse sources; the admin site shows them)")
    return 0


_FILE = Argument("file", metavar="FILE", help="Profile as JSON or YAML, or - for standard input.")
_PROFILE = Argument("profile", metavar="PROFILE", help="Name of the profile.")
COMMANDS = (
    CommandGroup(
        "profile",
        "Offer named sets of sources to groups of machines.",
        (
            Command(
                "preview",
                "Show whom a profile would touch, and change nothing.",
                configured(_preview),
                (
                    ("Show the effect of a profile:", "{prog} web.yaml"),
                    ("Read it from standard input:", "{prog} - < web.yaml"),
                    ("Print only the number of machines:", "{prog} web.yaml --json | jq .machines"),
                ),
                (_FILE, common.JSON_OBJECT),
            ),
            Command(
                "set",
                "Save a profile, after showing whom it touches.",
                configured(_set),
                (
                    ("Save a profile:", "{prog} web.yaml"),
                    ("Save it without a question:", "{prog} web.yaml --yes"),
                    ("Save it from standard input:", "{prog} - --yes < web.yaml"),
                ),
                (_FILE, common.YES),
            ),
            Command(
                "list",
                "Show all profiles, and how many machines took them.",
                configured(_list),
                (
                    ("Show the profiles:", "{prog}"),
                    ("Show them as JSON, for programs:", "{prog} --json"),
                    ("Print only the names:", "{prog} --json | jq -r '.[].profile'"),
                ),
                (common.JSON,),
            ),
            Command(
                "show",
                "Show a profile, and what machines refused of it.",
                configured(_show),
                (
                    ("Show a profile:", "{prog} web"),
                    ("Write it into a file, to change it:", "{prog} web --document > web.json"),
                    ("Print the refusals:", "{prog} web --json | jq .outcome.refusals"),
                ),
                (
                    _PROFILE,
                    Argument("--document", action="store_true", help="Print the profile alone, as 'set' reads it."),
                    common.JSON_OBJECT,
                ),
            ),
            Command(
                "remove",
                "Remove a profile, after showing whom that touches.",
                configured(_remove),
                (
                    ("Remove a profile:", "{prog} web"),
                    ("Remove it without a question:", "{prog} web --yes"),
                    ("Remove it, and see what is withdrawn later:", "{prog} web --yes && turku-api health"),
                ),
                (_PROFILE, common.YES),
                "The history of its sources stays. They are withdrawn until an operator confirms it.",
            ),
        ),
        (
            ("Show whom a profile would touch:", "{prog} preview web.yaml"),
            ("Save a profile:", "{prog} set web.yaml"),
            ("Show what machines refused of it:", "{prog} show web"),
        ),
    ),
)
