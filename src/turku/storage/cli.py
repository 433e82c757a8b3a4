"""The command lines of a storage: turku-storage, turku-storage-ping and turku-storage-update-config."""

from functools import partial

from turku.core.cli import entry as program_entry
from turku.core.cli import options
from turku.core.cli.program import Program
from turku.storage.config.defaults import DEFAULT_DIRECTORY

PROGRAM = Program(
    "turku-storage",
    "Keep the backups of machines.",
    "turku.storage.commands",
    {
        "host_setup": ("setup", "teardown"),
        "check": ("check", "config"),
        "status": ("status",),
        "registration": ("update-config", "rotate-secret", "recover-coordinator"),
        "browse": ("snapshots", "ls", "versions", "find", "diff"),
        "retention": ("retention",),
        "trash": ("trash",),
        "former": ("former",),
        "quarantine": ("quarantine",),
        "integrity": ("verify", "drill"),
        "adopt": ("adopt",),
        "maintenance": ("gc", "catalog", "accept-volume"),
        "authorized_keys": ("authorized-keys",),
        "ping": ("ping",),
    },
    (
        ("Set this host up as a storage:", "{prog} setup JOIN --volume /srv/turku"),
        ("Show the snapshots of one machine:", "{prog} snapshots --machine web/0"),
        ("Read an hour's worth of stored files again:", "{prog} verify --budget 3600"),
    ),
    (options.config_dir(DEFAULT_DIRECTORY, holds="config.d"), options.DEBUG),
)

main = PROGRAM.main
ping_main = partial(main, word="ping", prog="turku-storage-ping")
update_config_main = partial(main, word="update-config", prog="turku-storage-update-config")
entry = partial(program_entry.run, main)
ping_entry = partial(program_entry.run, ping_main)
update_config_entry = partial(program_entry.run, update_config_main)
