"""The command lines of a machine: turku-agent, turku-agent-ping and turku-update-config."""

from functools import partial
from pathlib import Path

from turku.core.cli import entry as program_entry
from turku.core.cli import options
from turku.core.cli.program import Program

PROGRAM = Program(
    "turku-agent",
    "Back up and restore this machine.",
    "turku.agent.commands",
    {
        "host_setup": ("setup", "teardown"),
        "ping": ("ping",),
        "registration": ("update-config", "rotate-keys", "re-enrol"),
        "check": ("check", "config"),
        "status": ("status",),
        "browse": ("snapshots", "ls", "versions", "find", "diff"),
        "restore": ("restore",),
        "storages": ("storages", "accept-storage"),
    },
    (
        ("Check the configuration, then send it to the coordinator:", "{prog} check && {prog} update-config"),
        ("Show the versions of a file:", "{prog} versions home alice/offer.odt"),
        ("Restore a directory as it was yesterday:", "{prog} restore home alice/letters --at yesterday"),
    ),
    (options.config_dir(Path("/etc/turku-agent"), holds="config.d and sources.d"), options.DEBUG),
)

main = PROGRAM.main
ping_main = partial(main, word="ping", prog="turku-agent-ping")
update_config_main = partial(main, word="update-config", prog="turku-update-config")
entry = partial(program_entry.run, main)
ping_entry = partial(program_entry.run, ping_main)
update_config_entry = partial(program_entry.run, update_config_main)
