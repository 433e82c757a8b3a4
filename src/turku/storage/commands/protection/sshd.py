"""The facts about sshd that ``turku-storage check`` shows: what it allows machines, and whether it asks about keys."""

import os
import re
import shutil
from collections.abc import Iterator

from turku.core import command
from turku.errors import CommandFailed
from turku.storage.commands.protection.fact import Fact, fail, ok, warn
from turku.storage.config.model import StorageConfig
from turku.storage.registration import acting_user

_TIMEOUT_SECONDS = 10.0
_SSHD_DIRECTORIES = "/usr/sbin:/usr/local/sbin:/sbin"
# The best settings for the user that machines log in as. The line of each key repeats them.
_SSHD_WANTED = {
    "gatewayports": ("no",),
    "allowtcpforwarding": ("remote",),
    "allowstreamlocalforwarding": ("no",),
    "allowagentforwarding": ("no",),
    "x11forwarding": ("no",),
    "permittunnel": ("no",),
    "permituserenvironment": ("no",),
}
# The line of a key cannot forbid these (threats M6).
_SSHD_DANGERS = {
    "allowstreamlocalforwarding": (
        ("yes", "all", "remote"),
        "machines can make Unix sockets in every directory of that user",
    ),
    "permittunnel": (("yes", "point-to-point", "ethernet"), "machines can join the storage's network, if it is root"),
    "gatewayports": (("yes",), "tunnels into machines listen on every interface"),
}
# A variable that a machine sets may make the forced command load a program out of that machine's own backups.
_HARMLESS_VARIABLE = re.compile(r"LANG|LANGUAGE|LC_[A-Z*?]+|COLORTERM|NO_COLOR|TERM|TURKU_NO_VARIABLE")


def facts(configuration: StorageConfig) -> Iterator[Fact]:
    """Yield the facts about sshd, as far as its configuration can be read."""
    subject, user = "sshd", configuration.ssh.authorized_keys_user
    search = f"{command.environment()['PATH']}:{_SSHD_DIRECTORIES}"
    program = shutil.which("sshd", path=search)
    if program is None:
        yield warn(subject, "no sshd on this host: is it in a container? its configuration was not seen")
        return
    try:
        asked = command.run(
            [program, "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1"], timeout_seconds=_TIMEOUT_SECONDS
        )
    except CommandFailed as error:
        reason = error.details.splitlines()[-1] if error.details else error.message
        yield warn(subject, f"its configuration was not seen ({reason}); try again as root")
        return
    output = asked.stdout.decode("utf-8", "replace")
    yield sshd_fact(output, user=user)
    yield new_machines_fact(output, runs_as=acting_user.name_of(os.geteuid()))


def sshd_fact(output: str, *, user: str) -> Fact:
    """Return the verdict on the settings that ``sshd -T`` printed for ``user``."""
    settings = _settings(output)
    if settings.get("disableforwarding") == "yes":
        return fail("sshd", f"DisableForwarding is set for {user}: no machine can open its tunnel")
    if settings.get("allowtcpforwarding") in ("no", "local"):
        return fail("sshd", f"AllowTcpForwarding is not remote for {user}: no machine can open its tunnel")
    if settings.get("permitlisten") == "none":
        return fail("sshd", f"PermitListen is none for {user}: no machine can open its tunnel")
    dangers = [
        f"{name} {settings[name]} ({danger})"
        for name, (values, danger) in _SSHD_DANGERS.items()
        if settings.get(name) in values
    ]
    dangers += [
        f"acceptenv {pattern} (it may make a program of the machine run here)"
        for pattern in _values(output, "acceptenv")
        if not _HARMLESS_VARIABLE.fullmatch(pattern)
    ]
    if dangers:
        return fail(
            "sshd",
            f"allows {user} what no line of a key can forbid: {', '.join(dangers)}; "
            "the sshd snippet for a Match block forbids it",
        )
    loose = [
        f"{name} {settings[name]}"
        for name, wanted in _SSHD_WANTED.items()
        if settings.get(name, wanted[0]) not in wanted
    ]
    if loose:
        return warn(
            "sshd",
            f"allows {user} more than backups need ({', '.join(loose)}); each machine's key forbids it, "
            "the sshd snippet for a Match block does so once more",
        )
    return ok("sshd", f"forwards nothing for {user} but ports of loopback to machines")


def new_machines_fact(output: str, *, runs_as: str) -> Fact:
    """Return whether ``sshd -T`` printed settings by which sshd asks this storage about keys, as user ``runs_as``."""
    subject, asked = "new machines", _rest(output, "authorizedkeyscommand")
    if "authorized-keys" not in asked.split():
        return ok(subject, "admitted by the next turku-storage-update-config; at once with AuthorizedKeysCommand")
    asks_as = _rest(output, "authorizedkeyscommanduser")
    if asks_as != runs_as:
        return fail(
            subject,
            f"sshd runs {asked.split()[0]} as {asks_as}, who cannot read this storage's secret; "
            f"AuthorizedKeysCommandUser must be who runs turku-storage-update-config (now {runs_as})",
        )
    return ok(subject, "admitted at once: sshd asks this storage about keys")


def _settings(output: str) -> dict[str, str]:
    return dict(line.lower().partition(" ")[::2] for line in output.splitlines())


def _rest(output: str, name: str) -> str:
    """Return the last value of a keyword as it stands, or an empty text where it is not set."""
    found = [rest for keyword, _, rest in (line.partition(" ") for line in output.splitlines()) if keyword == name]
    return found[-1] if found else ""


def _values(output: str, name: str) -> list[str]:
    """Return the words of every line of a keyword."""
    return [word for line in output.splitlines() for word in line.split()[1:] if line.split()[0] == name]
