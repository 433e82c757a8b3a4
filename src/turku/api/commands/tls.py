"""`turku-api tls`: the coordinator's own certificate and key."""

import argparse

from django.conf import settings

from turku.api.audit import log
from turku.api.commands.setup import configured
from turku.api.configuration.tls import creation, next_key, served
from turku.api.fleet.identity import pinned_keys
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError


def _create(parsed: argparse.Namespace, say: Say) -> int:
    files = creation.create_certificate(settings.TURKU_ENVIRONMENT.tls_directory, parsed.names)
    say(
        f"Key fingerprint: {files.parsed().key_fingerprint}\n\n"
        f"Put these lines into /etc/turku-api/environment and restart the service:\n\n"
        f"TURKU_TLS_CERTIFICATE={files.certificate}\nTURKU_TLS_KEY={files.key}"
    )
    return 0


def _show(_parsed: argparse.Namespace, say: Say) -> int:
    files = next_key.serving()
    parsed, shown = files.parsed(), files.description()
    made_by = "itself" if parsed.is_self_made else "an authority"
    say(
        f"Certificate:     {files.certificate}\nKey fingerprint: {parsed.key_fingerprint}\n"
        f"Names:           {shown.names}\nEnds:            {shown.ends:%Y-%m-%d %H:%M} UTC\nVouched for by:  {made_by}"
    )
    following = served.next_fingerprint()
    if following:
        say(f"Next key:        {following}\n{pinned_keys.acceptance(following)}.")
    return 0


def _next_key(_parsed: argparse.Namespace, say: Say) -> int:
    fingerprint = next_key.make()
    _record("tls.next_key", fingerprint)
    say(
        f"Next key: {fingerprint}\nIt is announced from now on. turku-api tls show says how many accept it, and "
        "turku-api tls switch puts it in use."
    )
    return 0


def _switch(parsed: argparse.Namespace, say: Say) -> int:
    fingerprint = next_key.require()
    accepted = pinned_keys.acceptance(fingerprint)
    if not accepted.is_complete and not parsed.force:
        raise UsageError(
            f"some would be left behind: {accepted}",
            hint="storages ask every five minutes and machines every twelve hours; --force leaves the others behind",
        )
    next_key.switch()
    _record("tls.switched", fingerprint)
    say(f"From now on the key is {fingerprint}. The one before is announced to nobody any more.")
    return 0


def _record(action: str, fingerprint: str) -> None:
    entry = log.NewEntry(action, None, new={"key": fingerprint})
    log.record(log.COMMAND_LINE, [entry], now=SYSTEM_CLOCK.now())


COMMANDS = (
    CommandGroup(
        "tls",
        "Make or show the coordinator's own certificate, or change its key.",
        (
            Command(
                "create",
                "Make a key and a certificate that no authority vouches for.",
                configured(_create),
                (
                    ("Make one for a name:", "{prog} turku.example.com"),
                    ("Make one for a name and an address:", "{prog} turku.example.com 192.0.2.1"),
                    ("Make one, and show it:", "{prog} turku && turku-api tls show"),
                ),
                (Argument("names", nargs="+", metavar="NAME", help="Host name or address of the coordinator."),),
            ),
            Command(
                "show",
                "Show the certificate, the fingerprint of its key, and who accepts the next key.",
                configured(_show),
                (
                    ("Show them:", "{prog}"),
                    ("Show the fingerprint alone:", "{prog} | grep 'Key fingerprint'"),
                    ("Show the end of the certificate:", "{prog} | grep Ends"),
                ),
            ),
            Command(
                "next-key",
                "Make the next key, and announce it from now on.",
                configured(_next_key),
                (
                    ("Make it:", "{prog}"),
                    ("Make it, and see who accepts it:", "{prog} && turku-api tls show"),
                    ("Make it, and put it in use at once:", "{prog} && turku-api tls switch --force"),
                ),
            ),
            Command(
                "switch",
                "Put the next key in use, when all that pin a key accept it.",
                configured(_switch),
                (
                    ("Put it in use:", "{prog}"),
                    ("Leave behind who does not accept it yet:", "{prog} --force"),
                    ("Put it in use, and show it:", "{prog} && turku-api tls show"),
                ),
                (Argument("--force", action="store_true", help="Leave behind who does not accept the next key."),),
            ),
        ),
        (
            ("Make a certificate:", "{prog} create turku.example.com"),
            ("Show it:", "{prog} show"),
            ("Change its key:", "{prog} next-key"),
        ),
    ),
)
