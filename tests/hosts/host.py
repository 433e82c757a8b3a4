"""Hosts of a test: systemd in containers, on a network of their own that leads nowhere else.

    with Network(["storage"]) as network:
        with Host("storage", [root], network, directory) as storage:
            storage.run("hostname")            # what it prints
            storage.reboot()

A host's root is an overlay on layers that stay as they are: a clean root of a Debian release, and what an earlier host
changed of it (``changes``).
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

_BOOT_SECONDS = 120
"""A boot takes two seconds where nothing else runs."""
_STOP_SECONDS = 40
_DOMAIN = "example.com"


def run(*command: str | Path, timeout_seconds: float = 60) -> str:
    """Return what a program on this computer prints. A failure shows what it said."""
    done = subprocess.run(
        command,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout_seconds,
    )
    if done.returncode:
        raise CommandRefused(command, done.returncode, done.stdout)
    return done.stdout


class CommandRefused(AssertionError):
    """A command ended with an exit code other than 0."""

    def __init__(self, command: Sequence[str | Path], exit_code: int, output: str) -> None:
        super().__init__(f"{' '.join(map(str, command))} ended with {exit_code}:\n{output}")
        self.exit_code = exit_code
        self.output = output


class Network:
    """A bridge in a network namespace of its own, and a namespace for each host that is connected to it."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._id = secrets.token_hex(3)
        self._bridge = f"turku-lan-{self._id}"
        self._addresses: dict[str, str] = {}
        self._cables: set[str] = set()
        self._namespaces: list[str] = []
        for name in names:
            self.address(name)

    def __enter__(self) -> Self:
        self._add_namespace(self._bridge)
        run("ip", "-n", self._bridge, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self._bridge, "link", "set", "bridge", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in reversed(self._namespaces):
            run("ip", "netns", "delete", namespace)

    def _add_namespace(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self._namespaces.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def connect(self, name: str) -> Path:
        """Return the network namespace of the host with this name."""
        namespace = f"turku-{name}-{self._id}"
        path = Path("/run/netns") / namespace
        if name in self._cables:
            return path
        self._cables.add(name)
        address = self.address(name)
        self._add_namespace(namespace)
        cable = f"c{address.rpartition('.')[2]}"
        run("ip", "-n", self._bridge, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "-n", self._bridge, "link", "set", cable, "master", "bridge", "up")
        run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return path

    def address(self, name: str) -> str:
        """Return the address of the host with this name, the next one for a new name."""
        return self._addresses.setdefault(name, f"10.77.0.{len(self._addresses) + 1}")

    @property
    def names(self) -> str:
        """The lines of /etc/hosts that name the hosts."""
        return "".join(f"{address} {name}.{_DOMAIN} {name}\n" for name, address in self._addresses.items())


def _is_first_process(process: int) -> bool:
    """Return True for process 1 of a container. One that only prepares it comes before, and is on this computer."""
    try:
        status = Path("/proc", str(process), "status").read_text()
    except OSError:
        return False
    ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(ids) > 1 and ids[-1] == "1"


class Host:
    """A host with systemd. ``binds`` are directories of this computer that it has mounted, by their paths there."""

    def __init__(
        self,
        name: str,
        layers: Sequence[Path],
        network: Network,
        directory: Path,
        *,
        binds: Mapping[str, Path] | None = None,
    ) -> None:
        self.name = name
        self.domain_name = f"{name}.{_DOMAIN}"
        self.binds = dict(binds or {})
        self._layers = [str(layer) for layer in reversed(layers)]
        self._network = network
        self._directory = directory / name
        self.root = self._directory / "root"
        self.changes = self._directory / "changes"
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        namespace = self._network.connect(self.name)
        for part in ("changes", "work", "root"):
            (self._directory / part).mkdir(parents=True)
        layers = f"lowerdir={':'.join(self._layers)},upperdir={self.changes},workdir={self._directory / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        self._namespace = namespace
        if len(self._layers) == 1:
            (self.root / "etc/hostname").write_text(f"{self.name}\n")
            (self.root / "etc/machine-id").write_text("")
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        run("umount", self.root)

    def boot(self) -> None:
        """Start systemd, and wait until it has started everything."""
        assert self._container is None, f"{self.name} runs already"
        binds = [f"--bind={outside}:{inside}" for inside, outside in self.binds.items()]
        self.write_names()
        with (self._directory / "console").open("ab") as console:
            self._container = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet", "--directory", self.root, "--machine", self.name, "--register=no",
                 "--keep-unit", "--capability=all", "--resolv-conf=off", "--timezone=off", "--console=pipe",
                 f"--network-namespace-path={self._namespace}", *binds, "--boot"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._is_booted():
            if self._container.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not boot:\n{self.console()[-3000:]}")
            time.sleep(0.2)

    def write_names(self) -> None:
        """Tell the host the addresses of all hosts that have one so far."""
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{self._network.names}")

    def _is_booted(self) -> bool:
        self._leader = self._leader or self._found_leader()
        if not self._leader:
            return False
        try:
            # Not "running": a timer that missed its moment may have started a program that takes its time.
            state = self.run("systemctl is-active multi-user.target || true").strip()
        except CommandRefused:
            return False
        return state == "active"

    def _found_leader(self) -> int:
        """Return the process that is process 1 of the host, or 0 before it is there."""
        return next((child for child in reversed(self._children()) if _is_first_process(child)), 0)

    def _children(self) -> list[int]:
        """Return the processes that systemd-nspawn started."""
        assert self._container is not None
        process = str(self._container.pid)
        with suppress(OSError):
            return [int(child) for child in Path("/proc", process, "task", process, "children").read_text().split()]
        return []

    def console(self) -> str:
        """Return what the container printed while it booted."""
        return (self._directory / "console").read_text(errors="replace")

    def arguments(self, script: str) -> list[str]:
        """Return the command line that runs a shell script on the host, as root with the environment of a login."""
        environment = ["HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TERM=dumb", "SHELL=/bin/bash",
                       "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                       "DEBIAN_FRONTEND=noninteractive"]  # fmt: skip
        return ["nsenter", "--target", str(self._leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                "--root", "env", "--ignore-environment", "--chdir=/root", *environment,
                "/bin/bash", "-c", script]  # fmt: skip

    def run(self, script: str, *, timeout_seconds: float = 120) -> str:
        """Return what a shell script prints that runs there as root. A failure shows it."""
        try:
            return run(*self.arguments(script), timeout_seconds=timeout_seconds)
        except CommandRefused as refused:
            raise CommandRefused([f"{self.name}#", script], refused.exit_code, refused.output) from None

    def refused(self, script: str, *, exit_code: int | None = None, timeout_seconds: float = 120) -> str:
        """Return what a script prints that must fail."""
        with pytest.raises(CommandRefused) as refused:
            self.run(script, timeout_seconds=timeout_seconds)
        if exit_code is not None:
            assert refused.value.exit_code == exit_code, refused.value
        return refused.value.output

    def wait_until(self, script: str, *, seconds: float = 60, every_seconds: float = 0.5) -> str:
        """Return what the script prints once it succeeds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.run(script)
            except CommandRefused as refused:
                if time.monotonic() > deadline:
                    raise AssertionError(f"not within {seconds} s: {refused}") from None
            time.sleep(every_seconds)

    def copy_in(self, *files: Path, to: str = "/root") -> None:
        """Copy files of this computer to a directory of the host."""
        target = self.root / to.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, target)

    def install(self, *packages: Path) -> str:
        """Install packages of this project, with what they depend on from the archive that the root brings."""
        self.copy_in(*packages)
        return self.run(f"apt-get install -y {' '.join(f'./{each.name}' for each in packages)}", timeout_seconds=300)

    def stop(self) -> None:
        """Shut the host down in order."""
        if self._container is None:
            return
        if self._leader and self._container.poll() is None:
            # The signal for systemd as process 1 to power off.
            with suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGRTMIN + 4)
        try:
            self._container.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.lose_power()
        self._container, self._leader = None, 0

    def lose_power(self) -> None:
        """End every process of the host at once."""
        assert self._container is not None
        # Process 1 outlives systemd-nspawn, and one that has not booted is not known yet.
        for process in (self._leader, *self._children()):
            with suppress(ProcessLookupError):
                if process:
                    os.kill(process, signal.SIGKILL)
        self._container.kill()
        self._container.wait(_STOP_SECONDS)
        self._container, self._leader = None, 0

    def reboot(self) -> None:
        """Shut down and boot again."""
        self.stop()
        self.boot()

    def failed_units(self) -> str:
        """Return the units that systemd lists as failed."""
        return self.run("systemctl list-units --failed --no-legend --plain")

    def journal(self, *options: str) -> str:
        """Return the journal of this boot with these options."""
        return self.run(f"journalctl --no-pager -b {' '.join(options)}")
