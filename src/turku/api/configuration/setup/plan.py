"""The plan of ``turku-api setup``: the steps from a bare host to a coordinator that answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import turku
from turku.api.configuration import environment, service_user
from turku.api.configuration.setup import account, health_call
from turku.api.configuration.setup.answers import Answers, TlsWay
from turku.core.clock import SYSTEM_CLOCK
from turku.core.secret import Secret
from turku.core.setup import accounts
from turku.core.setup.directories import directory_steps
from turku.core.setup.host import Host
from turku.core.setup.plan import Plan
from turku.core.setup.programs import program_steps
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import DONE, Action, FileStep, Finding, State, Step
from turku.core.setup.units import periodic_steps
from turku.errors import CommandFailed, ConfigurationError

PROGRAM: Final = "turku-api"
PACKAGE: Final = "turku.api"
SERVICE: Final = "turku-api.service"
JOIN_TOKENS: Final = "join tokens"
"""The record's entry of the tokens of the first setup, which are shown once."""
_HEADER: Final = """\
# Settings of the coordinator, written by 'turku-api setup'. Run it again to change one, or edit this file and run
# 'systemctl restart turku-api'. All variables are in docs/reference/configuration.md.
"""
_SHELL_MODULE: Final = "from turku.api.configuration.setup import account; account."


@dataclass(frozen=True)
class FirstAccount:
    """The account that setup creates, with the source of its password and of what is said about it."""

    name: str
    password: Callable[[], Secret]
    tell: Callable[[Secret], None]


@dataclass(frozen=True)
class Commands:
    """The commands of this program, run as the service runs them: as its user, with the settings of the file."""

    host: Host

    def run(self, *words: str) -> bytes:
        """Run a command, and return what it printed. Raises CommandFailed."""
        return self.host.run([self._path, *words]).stdout

    def feed(self, content: bytes, *words: str) -> None:
        """Run a command with this on its standard input. Raises CommandFailed."""
        self.host.feed([self._path, *words], content)

    def succeeds(self, *words: str) -> bool:
        """Run a command that only looks. Return False if it fails."""
        return self.host.succeeds(self._path, *words)

    @property
    def _path(self) -> str:
        return str(self.host.path(self.host.program_directory(PROGRAM) / PROGRAM))


@dataclass(frozen=True)
class DatabaseStep(Step):
    """The database and the keys, which ``migrate`` creates. Lost ones are never replaced by empty ones."""

    settings: environment.Environment
    title: str = "create the database and the keys"

    def find(self, host: Host, record: Record) -> Finding:
        lost = [path for path in self._files() if record.find(Kind.DATA, str(path)) and not host.path(path).exists()]
        if lost:
            raise ConfigurationError(
                f"{lost[0]} is missing, which an earlier setup created: a new one would know no machine and no storage",
                hint="bring it back with 'turku-api recover', or run 'turku-api teardown' to begin anew",
            )
        is_there = all(host.path(path).exists() for path in self._files())
        if is_there and Commands(host).succeeds("migrate", "--check"):
            return DONE
        return Finding(State.NEEDED, "brings it up to this version" if is_there else "")

    def apply(self, host: Host, record: Record) -> None:
        commands = Commands(host)
        try:
            commands.run("migrate", "--verbosity", "0")
        except CommandFailed as error:
            raise error.with_hint(self._hint()) from None
        for path in self._files():
            record.add(Made(Kind.DATA, str(path)))

    def _files(self) -> Sequence[Path]:
        database = [Path(self.settings.database.name)] if self.settings.database.engine == "sqlite3" else []
        return [*database, self.settings.secret_key_file, self.settings.hash_key_file]

    def _hint(self) -> str:
        if self.settings.database.engine == "sqlite3":
            return f"what the command printed is above; {service_user.FILE} has its settings"
        return (
            "does the database exist, and may this user use it? As its administrator: createuser NAME, "
            "createdb --owner NAME DATABASE (docs/howto/postgresql.md)"
        )


@dataclass(frozen=True)
class CertificateStep(Step):
    """The key and certificate that the coordinator makes itself. A key that may be pinned is never replaced."""

    answers: Answers

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"make a TLS key and a certificate for {', '.join(self._names)}"

    @property
    def _names(self) -> list[str]:
        return [name for name in self.answers.host_names if not name.startswith(".")]

    def find(self, host: Host, record: Record) -> Finding:
        files = (self.answers.certificate, self.answers.key)
        lost = [file for file in files if not host.path(file).exists()]
        if lost and record.find(Kind.DATA, str(self.answers.key)):
            raise ConfigurationError(
                f"{lost[0]} is missing, and machines and storages recognize the coordinator by its key",
                hint="bring it back with 'turku-api recover', or run 'turku-api teardown' to begin anew",
            )
        return Finding(State.NEEDED) if lost else DONE

    def apply(self, host: Host, record: Record) -> None:
        if host.path(self.answers.key).exists():
            # A killed run left a key that nobody knows. Its owner removes it, whatever lies at its path by now.
            host.run(["runuser", "-u", service_user.USER, "--", "rm", "-f", str(self.answers.key)])
        Commands(host).run("tls", "create", *self._names)
        record.add(Made(Kind.DATA, str(self.answers.key)))


def settings_step(answers: Answers) -> FileStep:
    """Return the step that writes the environment file."""
    return FileStep(
        service_user.FILE,
        (_HEADER + service_user.to_text(answers.variables())).encode(),
        mode=0o640,
        group=service_user.USER,
        purpose=f"settings of {answers.url}",
    )


def plan(host: Host, answers: Answers, first: FirstAccount, earlier: Mapping[str, str] | None = None) -> Plan:
    """Return the plan that makes a coordinator of the host. ``earlier`` are the variables that its file has now."""
    settings_file = settings_step(answers)
    settings = environment.read({**(earlier or {}), **answers.variables()})
    steps: list[Step] = [
        *program_steps(host, PROGRAM),
        *accounts.user_steps(PACKAGE, host, PROGRAM, purpose="the coordinator runs as this user"),
        *directory_steps(PACKAGE, host, PROGRAM),
        settings_file,
        # The commands that follow refuse to run without the keys.
        DatabaseStep(settings),
        *_certificate_steps(answers),
        _account_step(first),
        *_service_steps(host, answers, settings_file),
    ]
    return Plan(PROGRAM, steps, host)


def _certificate_steps(answers: Answers) -> list[Step]:
    if answers.tls is TlsWay.PROXY:
        return []
    if answers.tls is TlsWay.OWN:
        return [CertificateStep(answers)]

    def find_given(host: Host) -> Finding:
        return DONE if not _unreadable(host, answers) else Finding(State.NEEDED)

    def require(host: Host) -> None:
        unreadable = _unreadable(host, answers)
        if unreadable:
            raise ConfigurationError(
                f"the user {service_user.USER} cannot read {' and '.join(unreadable)}",
                hint=f"for example: chgrp {service_user.USER} FILE && chmod 0640 FILE, and let it enter its directory "
                "(docs/howto/reverse-proxy.md has a hook for Let's Encrypt)",
            )

    return [Action(f"see that {service_user.USER} can read {answers.certificate} and its key", find_given, require)]


def _unreadable(host: Host, answers: Answers) -> list[str]:
    files = (str(answers.certificate), str(answers.key))
    return [file for file in files if not host.succeeds("runuser", "-u", service_user.USER, "--", "test", "-r", file)]


def _account_step(first: FirstAccount) -> Step:
    def find(host: Host) -> Finding:
        try:
            shown = Commands(host).run("shell", "-v", "0", "-c", f"{_SHELL_MODULE}show_whether_there_is_one()")
        except CommandFailed:
            # There is no database yet.
            return Finding(State.NEEDED)
        return DONE if account.has_one(shown) else Finding(State.NEEDED)

    def create(host: Host) -> None:
        password = first.password()
        described = account.description(first.name, password)
        try:
            Commands(host).feed(described, "shell", "-v", "0", "-c", f"{_SHELL_MODULE}create_from_input()")
        except CommandFailed as error:
            raise CommandFailed(
                f"the account {first.name} was not created", details=error.details, hint="run this again with another"
            ) from None
        first.tell(password)

    return Action(f"create the account {first.name} for the site", find, create)


def _service_steps(host: Host, answers: Answers, settings_file: FileStep) -> Sequence[Step]:
    steps = periodic_steps(PACKAGE, host, PROGRAM, services=[SERVICE])
    return [*steps, _restart_step(settings_file), _answering_step(answers)] if host.has_systemd else steps


def _restart_step(settings_file: FileStep) -> Step:
    """Return the step that restarts a service that runs with older settings, or with the program before an upgrade."""

    def find(host: Host) -> Finding:
        if not host.succeeds("systemctl", "--quiet", "is-active", SERVICE):
            return DONE
        changes = settings_file.find(host, Record(host, PROGRAM)).state is State.NEEDED
        started = _started_unix_seconds(host)
        path = host.path(settings_file.place)
        changed = max(path.stat().st_mtime if path.exists() else 0.0, _program_changed_unix_seconds())
        # A time that is still to come was written while the clock was wrong.
        is_older = started is not None and started + 1 < changed <= SYSTEM_CLOCK.now().timestamp()
        return Finding(State.NEEDED) if changes or is_older else DONE

    def restart(host: Host) -> None:
        host.run(["systemctl", "restart", SERVICE])

    return Action(f"restart {SERVICE}, because settings or program are newer", find, restart)


def _program_changed_unix_seconds() -> float:
    """Return the time at which this program was installed, by its status: archives give their files older times.

    An upgrade of a library alone, or of a checkout in place, is not seen.
    """
    return Path(turku.__file__).stat().st_ctime


def _started_unix_seconds(host: Host) -> float | None:
    argv = ["systemctl", "show", "--timestamp=unix", "--property=ActiveEnterTimestamp", "--value", SERVICE]
    try:
        return float(host.run(argv).stdout.decode().strip().removeprefix("@"))
    except (CommandFailed, ValueError):
        return None


def _answering_step(answers: Answers) -> Step:
    speaks_tls = answers.tls is not TlsWay.PROXY

    def find(_host: Host) -> Finding:
        is_there = health_call.answers(answers.bind, host_name=answers.host_names[0], speaks_tls=speaks_tls)
        return DONE if is_there else Finding(State.NEEDED)

    def wait(host: Host) -> None:
        if health_call.wait(answers.bind, host_name=answers.host_names[0], speaks_tls=speaks_tls):
            return
        lines = ""
        if host.find_program("journalctl"):
            shown = host.run(["journalctl", "--unit", SERVICE, "--lines", "15", "--no-pager", "--output", "cat"])
            lines = shown.stdout.decode("utf-8", "replace")
        raise CommandFailed(
            f"{SERVICE} does not answer on {answers.bind} within {health_call.WAIT_SECONDS:g} s",
            details=lines,
            hint=f"systemctl status {SERVICE}; then run this again",
        )

    return Action(f"wait until the coordinator answers on {answers.bind}", find, wait)
