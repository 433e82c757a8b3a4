"""The rsync daemon of a backup: it offers the due modules during one session (contract, "A backup session")."""

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from turku.agent.config.model import AgentConfig, RsyncdConfig
from turku.agent.rsyncd import config_text, daemon
from turku.agent.rsyncd.config_text import Module, ModuleSection
from turku.agent.rsyncd.daemon import DaemonLog
from turku.agent.state import var_dir
from turku.policy import compression

_LOG = logging.getLogger(__name__)
_CONNECTIONS = 16
"""Connections per module at the same time. A storage needs one, and an operator who restores may run several."""


def serve(agent: AgentConfig, modules: Sequence[Module], directory: Path) -> AbstractContextManager[int]:
    """Run a daemon that offers the modules for the length of the block, and give its port.

    ``directory`` is private and empty. It receives the configuration and the secrets. Another port is drawn where one
    is taken on this machine. Raises CommandFailed when the daemon does not start.
    """
    address = agent.rsyncd.rsyncd_local_address

    @contextmanager
    def serve_on(port: int) -> Iterator[int]:
        configuration = _write_files(agent.rsyncd, modules, Path(tempfile.mkdtemp(dir=directory)), port)
        # Only where a path needs it, so that wrappers that drop the environment can serve all other paths.
        environment = {config_text.PERCENT_VARIABLE: "%"} if any("%" in module.path for module in modules) else None
        log = DaemonLog()
        with daemon.start(agent.rsyncd, configuration, port, log, environment=environment) as child:
            daemon.wait_until_ready(child, address, port)
            try:
                yield port
            finally:
                log.end()

    return daemon.on_free_port(address, serve_on)


def _write_files(configuration: RsyncdConfig, modules: Sequence[Module], directory: Path, port: int) -> Path:
    sections = []
    for number, module in enumerate(modules):
        secrets = var_dir.write_private(directory / f"secrets-{number}", module.secrets_text)
        settings = {}
        if module.hidden or module.emptied:
            patterns = [_pattern(hidden.relative_to(module.path)) for hidden in module.hidden]
            patterns += [_pattern_within(emptied.relative_to(module.path)) for emptied in module.emptied]
            text = "".join(f"{pattern}\n" for pattern in patterns)
            path = var_dir.write_private(directory / f"exclude-{number}", text)
            settings["exclude from"] = str(path)
        sections.append(ModuleSection(module, secrets, settings))
    text = config_text.render(
        sections,
        address=configuration.rsyncd_local_address,
        port=port,
        lock_file=directory / "connections.lock",
        user_and_group=(configuration.rsyncd_user, configuration.rsyncd_group) if os.geteuid() == 0 else None,
        change_root=daemon.can_change_root(),
        connections=_CONNECTIONS,
        settings={
            # ``DaemonLog`` reads standard error. Without a log file rsyncd would write to syslog.
            "log file": "/dev/stderr",
            # Where a storage asks for compression, files that are compressed already are sent as they are.
            "dont compress": compression.COMPRESSED_FILES,
        },
    )
    return var_dir.write_private(directory / "rsyncd.conf", text)


def _pattern(path: Path) -> str:
    """Return an rsync pattern for the path.

    In a pattern without a wildcard a backslash stands for itself, and in one with a wildcard it escapes the next
    character. A line break cannot be written, so any character matches in its place.
    """
    text = os.fsdecode(path)
    if re.search(r"[*?\[\n\r]", text):
        text = re.sub(r"[\n\r]", "?", re.sub(r"([\\*?\[])", r"\\\1", text))
    return f"/{text}"


def _pattern_within(path: Path) -> str:
    """Return an rsync pattern for everything inside the directory and nothing else.

    In a pattern with a wildcard a backslash escapes the next character, and this pattern ends with a wildcard. A line
    break cannot be written, so any character matches in its place.
    """
    escaped = re.sub(r"([\\*?\[])", r"\\\1", os.fsdecode(path))
    return "/" + re.sub(r"[\n\r]", "?", escaped) + "/*"
