"""Fixtures of all tests: a private state directory for the coordinator, hypothesis's profile, and that unit and
property tests start no children and open no sockets."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import croniter  # noqa: F401  (it starts a program where it is first imported)
import pytest
from django.conf import settings as django_settings
from hypothesis import settings as hypothesis_settings
from tests.support import rsync_programs

from turku.api.configuration import environment, key_file

if "TURKU_DATABASE_URL" in os.environ:
    raise pytest.UsageError("TURKU_DATABASE_URL is set: the tests bring their own databases; unset it")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell's `make test &` has it: our programs would inherit that, and not end when a test interrupts them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_STATE_DIR = Path(tempfile.mkdtemp(prefix="turku-tests-"))
for _name in [name for name in os.environ if name.startswith("TURKU_")]:
    del os.environ[_name]
os.environ["TURKU_STATE_DIR"] = str(_STATE_DIR)
# pytest-django reads the settings before any conftest. Their values from the environment are replaced.
django_settings.TURKU_ENVIRONMENT = environment.read(os.environ)
django_settings.TURKU_SETTING_ERRORS = []
key_file.generate_if_missing(django_settings.TURKU_ENVIRONMENT.hash_key_file)

# No deadline per example: two shared cores make single examples slow now and then.
hypothesis_settings.register_profile("turku", max_examples=100, deadline=None)
hypothesis_settings.load_profile("turku")

_ELSEWHERE = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "socket.bind", "socket.connect"}
_is_alone = False


def _refuse(event: str, _arguments: object) -> None:
    if _is_alone and event in _ELSEWHERE:
        raise AssertionError(f"{event}: a unit or property test starts no children and opens no sockets")


# One for the whole run: an audit hook cannot be taken out again.
sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    global _is_alone  # noqa: PLW0603  (what a hook can look at)
    _is_alone = request.path.relative_to(Path(__file__).parent).parts[0] in ("unit", "property")
    yield
    _is_alone = False


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Undo the changes of a program to its own process when a test calls it here: its umask and its priority."""
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
    if os.geteuid() == 0 and os.getpriority(os.PRIO_PROCESS, 0) != 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    rsync_programs.add_options(parser)
    parser.addoption("--hosts", action="store_true", help="collect the tests on hosts with systemd (make test-hosts)")
    parser.addoption("--write-tutorial", action="store_true", help="write the output of the tutorial into its page")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests on hosts to `make test-hosts`: they need the packages."""
    return True if collection_path == Path(__file__).parent / "hosts" and not config.getoption("--hosts") else None


def pytest_configure(config: pytest.Config) -> None:
    rsync_programs.choose(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in rsync_programs.summary():
        terminalreporter.write_line(line)


def pytest_unconfigure() -> None:
    # No fixture: xdist's controller, which runs no test, has a directory too.
    shutil.rmtree(_STATE_DIR, ignore_errors=True)
