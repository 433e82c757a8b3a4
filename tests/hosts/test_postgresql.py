"""A coordinator that ``turku-api setup`` sets up on PostgreSQL, as the how-to page describes it."""

import pytest
from tests.hosts.conftest import Bare
from tests.hosts.releases import Release
from tests.support.markdown import REPOSITORY

PAGE = REPOSITORY / "docs/howto/postgresql.md"


def commands() -> list[str]:
    """Return the page's commands for a server on the same host, up to the set-up."""
    lines = [line.removeprefix("# ") for line in PAGE.read_text().splitlines() if line.startswith("# ")]
    last = next(place for place, line in enumerate(lines) if line.startswith("turku-api setup"))
    # The first one is the title of the page.
    return lines[1 : last + 1]


@pytest.mark.parametrize("release", Release, ids=lambda release: release.value)
def test_a_coordinator_is_set_up_on_the_postgresql_of_its_release(bare: Bare, release: Release) -> None:
    host = bare("turku", release)
    host.install(*release.packages("turku-api"))
    *before, setup = commands()
    assert any("createdb" in line for line in before)
    for line in before:
        host.run(line if "apt-get" not in line else f"{line} -y", timeout_seconds=300)
    said = host.run(f"{setup} --yes", timeout_seconds=300)
    assert "The coordinator is ready" in said
    assert "turku-agent setup turku-machine-" in said
    assert "PostgreSQL" in host.run("turku-api status")
    host.run("turku-api health && turku-api backup")
    assert "is set up: all" in host.run(f"{setup} --yes")
    host.reboot()
    host.wait_until("turku-api health && systemctl is-active turku-api.service")
    assert host.failed_units() == ""
