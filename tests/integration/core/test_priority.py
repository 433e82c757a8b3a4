"""A child lowers its priority, and drops a capability for the programs that it starts."""

import os
import subprocess
import sys

import pytest


def printed(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_background_work_has_the_lowest_priority() -> None:
    assert (
        printed("import os; from turku.core.kernel.process import lower_priority; lower_priority(); print(os.nice(0))")
        == "19"
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to drop")
def test_a_dropped_capability_is_gone() -> None:
    script = "from turku.core.kernel import process as b; b.drop_capability(b.MAKE_DEVICES); print(b.has_capability(b.MAKE_DEVICES))"
    assert printed(script) == "False"


def test_a_capability_that_does_not_exist_is_an_error() -> None:
    from turku.core.kernel import process

    with pytest.raises(OSError, match="Invalid argument"):
        process.has_capability(1000)
