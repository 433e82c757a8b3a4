"""Setup with real programs, below another root directory."""

import stat
from pathlib import Path

import pytest

from turku.core.setup import teardown
from turku.core.setup.accounts import user_steps
from turku.core.setup.directories import directory_steps
from turku.core.setup.host import Host
from turku.core.setup.plan import Plan

PROGRAM = "turku-example"


@pytest.mark.root
def test_the_user_and_directories_are_made_for_real_below_another_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    real = Host(tmp_path)
    if real.find_program("systemd-sysusers") is None:
        pytest.skip("no systemd-sysusers")
    steps = [
        *user_steps("turku.agent", real, PROGRAM, purpose="runs the agent"),
        *directory_steps("turku.agent", real, PROGRAM),
    ]
    said: list[str] = []
    assert Plan(PROGRAM, steps, real).carry_out(said.append, is_confirmed=True)
    account = real.account("turku-agent")
    assert account is not None
    assert real.path("/var/lib/turku-agent").stat().st_uid == account.uid
    assert stat.S_IMODE(real.path("/etc/turku-agent/config.d").stat().st_mode) == 0o700
    assert Plan(PROGRAM, steps, real).carry_out(said.append)
    assert said[-1].startswith("turku-example is set up")
    teardown.tear_down(PROGRAM, real, said.append, is_confirmed=True)
    assert real.account("turku-agent") is None
    assert not real.path("/etc/turku-agent").exists()
