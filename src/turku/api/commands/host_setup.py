"""``turku-api setup`` and ``teardown``: make this host the coordinator, and undo that.

Django is not set up here. What needs the database runs as a command of its own, as the service's user.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from turku.api.configuration import environment, service_user
from turku.api.configuration.setup import answers as setup_answers
from turku.api.configuration.setup.answers import OTHER_PORT, PORT, Answers, Given, TlsWay
from turku.api.configuration.setup.plan import (
    JOIN_TOKENS,
    PROGRAM,
    SERVICE,
    Commands,
    FirstAccount,
    plan,
    settings_step,
)
from turku.core.cli import options as common
from turku.core.cli import person
from turku.core.cli.arguments import count
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.secret import Secret, generate_secret
from turku.core.setup import teardown
from turku.core.setup.host import Host
from turku.core.setup.plan import EXIT_NOT_DONE, require_root
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import State
from turku.errors import UsageError

_ADMIN: Final = "admin"
_PASSWORD_LENGTH: Final = 20
_WAYS: Final = ("generate", "ask", "stdin")


def set_up(options: argparse.Namespace) -> int:
    """Make this host the coordinator. Return 0 if it is one."""
    require_root()
    say: Say = partial(print, flush=True)
    host = Host()
    earlier = service_user.read_file(service_user.FILE)
    asks = person.is_there() and not options.yes
    answers = setup_answers.find(_given(options), earlier, host, asks=asks)
    _refuse_to_change_edited_settings(host, answers, earlier)
    if not earlier and options.port is None and answers.bind.endswith(f":{OTHER_PORT}"):
        say(f"note: another program has port {PORT}, so the coordinator listens on {OTHER_PORT}.")
    if earlier and earlier.get("TURKU_DATABASE_URL", "") != answers.database_url.reveal():
        say("note: another database than before. Nothing is moved to it: docs/howto/postgresql.md tells how.")
    name = options.admin or (person.text("Name of the first account", _ADMIN) if asks and not earlier else _ADMIN)
    first = FirstAccount(
        name, lambda: _password(options.admin_password), lambda password: _tell(say, options, name, password)
    )
    made = plan(host, answers, first, earlier)
    if not made.carry_out(say, is_dry_run=options.dry_run, is_confirmed=options.yes):
        return 0 if options.dry_run else EXIT_NOT_DONE
    if not options.dry_run:
        _conclude(host, answers, say)
    return 0


def tear_down(options: argparse.Namespace) -> int:
    """Undo what setup made on this host."""
    require_root()
    earlier = service_user.read_file(service_user.FILE)
    state_dir = earlier.get("TURKU_STATE_DIR", environment.DEFAULT_STATE_DIR)
    stays = [f"{state_dir}: the keys, and the database if it is SQLite"]
    if earlier.get("TURKU_DATABASE_URL", "").startswith("postgres"):
        stays.append("the PostgreSQL database, with everything that the coordinator knows")
    stays.append("storages and machines: backups stop until a coordinator answers again at the same address")
    is_done = teardown.tear_down(
        PROGRAM,
        Host(),
        print,
        stays=stays,
        keeps_user=f"the keys in {state_dir} belong to it" if Path(state_dir).exists() else "",
        is_dry_run=options.dry_run,
        is_confirmed=options.yes,
    )
    return 0 if is_done or options.dry_run else EXIT_NOT_DONE


def _refuse_to_change_edited_settings(host: Host, answers: Answers, earlier: Mapping[str, str]) -> None:
    """Raise UsageError if the options differ from a settings file that somebody edited, which setup never replaces."""
    wanted = answers.variables()
    changed = [name for name, value in wanted.items() if earlier.get(name) != value]
    if changed and settings_step(answers).find(host, Record(host, PROGRAM)).state is State.KEPT:
        raise UsageError(
            f"{service_user.FILE} was written or edited by hand, and lacks: "
            + ", ".join(f"{name}={_shown(wanted[name])}" for name in changed),
            hint=f"change it there, then: systemctl restart {SERVICE}, and run this again",
        )


def _shown(value: str) -> str:
    return "***" if value.startswith("postgres") else value


def _given(options: argparse.Namespace) -> Given:
    return Given(
        host_names=tuple(options.host_name or ()),
        url=options.url,
        time_zone=options.time_zone,
        database=options.database,
        database_password_file=options.database_password_file,
        tls=None if options.tls is None else TlsWay(options.tls),
        certificate=options.tls_certificate,
        key=options.tls_key,
        port=options.port,
    )


def _password(way: str) -> Secret:
    if way == "ask":
        first, second = person.secret("Password of the account"), person.secret("The same again")
        if first != second:
            raise UsageError("the two passwords differ", hint="run this again")
        return first
    if way == "stdin":
        return Secret(person.input_line())
    return generate_secret(_PASSWORD_LENGTH)


def _tell(say: Say, options: argparse.Namespace, name: str, password: Secret) -> None:
    if options.admin_password == "generate":  # noqa: S105  (a way to get one)
        say(f"Account {name}, password {password.reveal()} (shown this once; turku-api changepassword {name})")


def _conclude(host: Host, answers: Answers, say: Say) -> None:
    """Print the address of the site, and at the first time the two lines that set storages and machines up."""
    say("")
    if host.has_systemd:
        say(f"The coordinator is ready. Site: {answers.url}/admin/")
    else:
        say("systemd is not running here. Have your service manager run 'turku-api serve' as root or turku-api.")
    if answers.tls is TlsWay.OWN:
        say("A browser warns of its certificate. 'turku-api tls show' prints the fingerprint to compare.")
    if answers.tls is TlsWay.PROXY:
        say(f"It listens on {answers.bind}. docs/howto/reverse-proxy.md has configurations for the proxy.")
    record = Record(host, PROGRAM)
    if record.find(Kind.DATA, JOIN_TOKENS) is not None:
        say("New join tokens: turku-api join-token create storage, turku-api join-token create machine")
        return
    commands = Commands(host)
    kinds = ("storage", "machine")
    storage, machine = (commands.run("join-token", "create", kind, "--raw").decode().strip() for kind in kinds)
    say("")
    say("On the storage, within a day (the token sets up one):")
    say("")
    say(f"turku-storage setup {storage} --volume /srv/turku")
    say("")
    say("On each machine, within a day (up to 100 of them):")
    say("")
    say(f"turku-agent setup {machine} --source etc=/etc")
    say("")
    say("'turku-api join-token create storage' and '... machine' print new ones.")
    record.add(Made(Kind.DATA, JOIN_TOKENS))


COMMANDS = (
    Command(
        "setup",
        "Make this host the coordinator: user, settings, TLS, database, first account and service.",
        set_up,
        (
            ("Set it up, answering its questions:", "{prog}"),
            ("Set it up without a question:", "{prog} --yes --host-name turku.example.com"),
            ("Use PostgreSQL:", "{prog} --database postgresql:///turku?host=/run/postgresql"),
        ),
        (
            Argument(
                "--host-name",
                action="append",
                metavar="NAME",
                help="Name or address under which others reach this host. Can be repeated (default: full host name).",
            ),
            Argument("--url", metavar="URL", help="Address for machines and storages (default: from name and port)."),
            Argument("--time-zone", metavar="ZONE", help="Time zone of schedules and site (default: the system's)."),
            Argument(
                "--database",
                metavar="URL",
                help="Database: sqlite (default), or postgresql://USER@HOST/NAME without a password.",
            ),
            Argument(
                "--database-password-file",
                type=Path,
                metavar="FILE",
                help="File whose first line is the password (default: TURKU_DATABASE_PASSWORD, or a question).",
            ),
            Argument(
                "--tls",
                choices=[way.value for way in TlsWay],
                help="TLS with a certificate made now (own, default), a given one (files), or by a proxy in front.",
            ),
            Argument("--tls-certificate", type=Path, metavar="FILE", help="A given certificate, with its chain."),
            Argument("--tls-key", type=Path, metavar="FILE", help="The key of the given certificate."),
            Argument(
                "--port",
                type=count(65535),
                metavar="PORT",
                help="Port to listen on (default: 443, or 8443 if that is taken, and 8000 behind a proxy).",
            ),
            Argument("--admin", metavar="NAME", help="Name of the first account of the site (default: admin)."),
            Argument(
                "--admin-password",
                choices=_WAYS,
                default=_WAYS[0],
                help="Its password: made and shown once (generate, default), asked for (ask), or the first line of "
                "standard input (stdin).",
            ),
            common.DRY_RUN,
            common.YES,
        ),
        "It shows the steps, asks once, waits until the service answers, and prints the lines that set up a storage "
        "and machines. Run it again to finish an interrupted run, to change a setting, or after an upgrade.",
        exit_codes={EXIT_NOT_DONE: "Nothing was done."},
    ),
    teardown.command("Undo what setup made on this host. The database and the keys stay.", tear_down),
)
