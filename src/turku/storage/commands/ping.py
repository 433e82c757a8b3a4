"""``turku-storage ping``, and ``turku-storage-ping``: serve one session of one machine."""

import argparse
import os

from turku.core.cli.program import Argument, Command
from turku.policy import names
from turku.storage.commands.setup import PRIVATE_UMASK, config_dir, logged
from turku.storage.session import server

_UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


def run(options: argparse.Namespace) -> int:
    """Serve the session that speaks on standard input and output."""
    uuid = names.machine_uuid(options.uuid)
    os.umask(PRIVATE_UMASK)
    return logged(lambda: server.run(config_dir(options), uuid, debug=options.debug))


COMMANDS = (
    Command(
        "ping",
        "Serve one session of one machine. This is the forced command of the machine's SSH key.",
        run,
        (
            ("Serve a machine, as its line in authorized_keys does:", f"{{prog}} {_UUID}"),
            ("Use another configuration:", f"{{prog}} -c /srv/turku {_UUID}"),
            ("Log the details of its sessions:", f"{{prog}} --debug {_UUID}"),
        ),
        (Argument("uuid", metavar="UUID", help="Machine, as its line in authorized_keys names it."),),
        "The machine's request is read from standard input.",
        {2: "A backup of the session failed."},
    ),
)
