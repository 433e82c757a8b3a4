"""Hosts with systemd for each test, bare or as the tutorial leaves them."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.hosts import tutorial
from tests.hosts.fleet import HOSTS, Fleet
from tests.hosts.host import Host, Network
from tests.hosts.releases import Release
from tests.support.loop_volume import enter_own_mount_namespace

Bare = Callable[..., Host]


@pytest.fixture(scope="session", autouse=True)
def _own_mounts() -> None:
    """Let every mount and network namespace of the tests end with them, however they end."""
    if os.geteuid() != 0:
        pytest.skip("only root can start hosts")
    enter_own_mount_namespace()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Things that end with the test, in the reverse order of their beginning."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def network(stack: ExitStack) -> Network:
    """A network that leads nowhere else."""
    return stack.enter_context(Network(HOSTS))


@pytest.fixture
def bare(network: Network, stack: ExitStack, tmp_path: Path) -> Bare:
    """Start bare hosts: ``bare("machine", Release.DEBIAN12)``."""

    def start(name: str, release: Release, **binds: Path) -> Host:
        host = Host(name, [release.root], network, tmp_path, binds={f"/srv/{key}": path for key, path in binds.items()})
        return stack.enter_context(host)

    return start


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tutorial.Followed:
    """The hosts of the tutorial after its last step, stopped. The first worker that needs them makes them."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = shared / "template"
        if not directory.exists():
            tutorial.follow(directory)
        # An earlier test that needed them has failed, and has said why.
        assert (directory / tutorial.RECORD).exists(), "the tutorial could not be followed"
        return tutorial.read(directory)


@pytest.fixture
def fleet(template: tutorial.Followed, network: Network, stack: ExitStack, tmp_path: Path) -> Fleet:
    """The hosts of the tutorial, each booted when it is first named."""
    return Fleet(template, network, stack, tmp_path)
