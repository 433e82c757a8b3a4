"""A storage that an attacker owns, for our agent: its sshd is real, its forced command is this file.

    hostile = HostileStorage(directory)
    sshd.authorized_keys.write_text(hostile.line(public_key, "hold"))
    request = hostile.request()     what the agent sent: port, user names, one-time passwords
    hostile.rsync(...)              an attempt through the tunnel meanwhile
    hostile.release()               let the session end well
    loot(directory, victim)         a tree with links out of it, for rsync to send

Behaviours: ``hold`` keeps the session open until it is released. ``cling`` never lets go, whatever it is told.
``flood`` and ``flood-line`` talk without end, with and without line breaks. ``restore`` says the lines of ``plan``
(JSON), waits until the agent lets it write (``has_go``), and says the lines of ``answers`` when it is released.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from turku.errors import TunnelRefused
from turku.storage.session import tunnel_ownership


class HostileStorage:
    """The attacker's side of sessions. ``directory`` is made and holds what it learns."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def line(self, public_key: str, behaviour: str) -> str:
        """A line of authorized_keys whose forced command behaves like that."""
        return f'command="{sys.executable} {Path(__file__).resolve()} {behaviour} {self.directory}" {public_key}\n'

    def request(self, *, seconds: float = 30) -> dict[str, Any]:
        """The request of the session that is open now."""
        path = self.directory / "request.json"
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < deadline, "no session was opened"
            time.sleep(0.02)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The environment that the session gave its program."""
        found: dict[str, str] = json.loads((self.directory / "environment.json").read_text())
        return found

    @property
    def process(self) -> int:
        """The forced command's process."""
        return int((self.directory / "pid").read_text())

    def release(self) -> None:
        (self.directory / "release").touch()

    def will_say(self, plan: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        """Set the lines that it sends an agent that restores, before and after it may write."""
        for name, lines in (("plan", plan), ("answers", answers)):
            _write(self.directory / name, "".join(f"{json.dumps(line)}\n" for line in lines))

    @property
    def has_go(self) -> bool:
        """Return True if the agent lets it write."""
        return (self.directory / "go").exists()

    def forget(self) -> None:
        """Be ready for another session."""
        for path in self.directory.iterdir():
            path.unlink()

    def rsync(
        self, *arguments: str | Path, login: dict[str, str] | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run an rsync of the attacker's. ``{}`` in an argument becomes USER@127.0.0.1:PORT of the tunnel."""
        argv, environment = self._rsync(arguments, login)
        return subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def start_rsync(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """An rsync as of ``rsync``, while it runs."""
        argv, environment = self._rsync(arguments, None)
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _rsync(self, arguments: Sequence[str | Path], login: dict[str, str] | None) -> tuple[list[str], dict[str, str]]:
        request = self.request()
        login = login or request.get("module") or next(iter(request["sources"].values()))
        address = f"{login['username']}@127.0.0.1:{request['port']}"
        argv = ["rsync", "--contimeout=5", *(str(word).replace("{}", address) for word in arguments)]
        return argv, {**os.environ, "RSYNC_PASSWORD": login["password"]}


def loot(tmp_path: Path, victim: Path) -> Path:
    """Make the tree that the attacker sends: links out of the tree, and files that would go through them."""
    tree = tmp_path / "loot"
    tree.mkdir()
    (tree / "authorized_keys").write_text("planted")
    (tree / "file").write_text("planted")
    (tree / "absolute").symlink_to(victim)
    (tree / "relative").symlink_to("../victim")
    (tree / "key").symlink_to(victim / "authorized_keys")
    return tree


def roots_of_rsyncd(agent: int) -> set[tuple[int, int]]:
    """The directories that the agent's rsyncd is locked into while it serves, by device and inode: of each connection
    that is."""
    daemons = [child for child in children_of(agent) if b"--daemon" in Path(f"/proc/{child}/cmdline").read_bytes()]
    found = set()
    for connection in (child for daemon in daemons for child in children_of(daemon)):
        # One that is reached by a mount of its own has no path here.
        with suppress(OSError):
            found.add(identity(Path(f"/proc/{connection}/root/")))
    return found - {identity(Path("/"))}


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _read_request() -> str:
    text = ""
    for line in sys.stdin:
        if line.rstrip("\n") == ".":
            return text
        text += line
    return text


def _write(path: Path, content: str) -> None:
    path.with_suffix(".part").write_text(content)
    path.with_suffix(".part").rename(path)


def main(behaviour: str, directory: Path) -> int:
    """The exit code of a session."""
    request = _read_request()
    if (port := json.loads(request).get("port")) is not None:
        try:
            # As any storage does: sshd is content with ::1 where somebody else's connection has the port on 127.0.0.1.
            tunnel_ownership.require_own_tunnel(port)
        except TunnelRefused as error:
            return error.exit_code
    _write(directory / "environment.json", json.dumps(dict(os.environ)))
    _write(directory / "pid", str(os.getpid()))
    _write(directory / "request.json", request)
    if json.loads(request)["action"] == "restore":
        print(f"Restore mode active on port {json.loads(request)['port']}.  Good luck.", file=sys.stderr, flush=True)
    if behaviour in ("flood", "flood-line"):
        chunk = (b"x" * 100 + (b"\n" if behaviour == "flood" else b"")) * 1000
        while True:
            os.write(2, chunk)
            os.write(1, chunk)
    if behaviour == "cling":
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        for _ in range(600):
            time.sleep(0.1)
        return 0
    if behaviour == "restore":
        print((directory / "plan").read_text(), end="", flush=True)
        if os.read(0, 16) != b"go\n":
            return 0
        _write(directory / "go", "")
    while not (directory / "release").exists():
        # The end of input: the agent is gone.
        if select.select([0], [], [], 0.05)[0] and not os.read(0, 1024):
            return 1
    if behaviour == "restore":
        print((directory / "answers").read_text(), end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
