"""The bubblewrap argument list: what a receiver is shown, and what it keeps."""

import itertools
import platform
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.storage.commands.protection import host
from turku.storage.commands.protection.fact import Verdict
from turku.storage.containment import bubblewrap, capabilities, seccomp

MACHINE = Path("/srv/turku/9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d")
STAGING, BASE = MACHINE / "etc.snapshots" / ".staging", MACHINE / "etc.snapshots" / "etc_20260131-120000_0a1b"


def wrapped(capabilities: tuple[str, ...] | None = capabilities.OWNER_CAPABILITIES, **keywords: Any) -> list[str]:
    return bubblewrap.wrap(
        ["rsync", "--archive"],
        writable={"/tree": STAGING},
        readable={"/beside0": BASE},
        capabilities=capabilities,
        **keywords,
    )


def mounts(argv: list[str], option: str) -> list[str]:
    return [argv[place + 2] for place, word in enumerate(argv) if word == option]


def test_only_the_staging_directory_is_writable_and_the_base_is_seen() -> None:
    argv = wrapped()
    assert mounts(argv, "--bind") == ["/tree"]
    assert argv[argv.index("/tree") - 1] == str(STAGING)
    assert argv[argv.index("/beside0") - 2 : argv.index("/beside0")] == ["--ro-bind", str(BASE)]
    # Nor is the sandbox's own root, in which an attacker could make names that bubblewrap did not.
    assert argv[argv.index("--chdir") - 2 : argv.index("--chdir")] == ["--remount-ro", "/"]


def test_of_the_system_only_programs_and_libraries_are_seen() -> None:
    shown = set(mounts(wrapped(), "--ro-bind") + mounts(wrapped(), "--ro-bind-try"))
    assert "/usr" in shown
    assert not {"/", "/etc", "/home", "/root", "/run", "/srv", "/sys", "/var", "/etc/shadow"} & shown


def test_every_namespace_is_new_the_network_too() -> None:
    argv = wrapped()
    for name in ("ipc", "pid", "net", "uts"):
        assert f"--unshare-{name}" in argv
    assert "--share-net" not in argv
    assert "--die-with-parent" in argv


def test_root_keeps_the_capabilities_it_is_given_and_no_other() -> None:
    argv = wrapped()
    first_drop = argv.index("--cap-drop")
    assert argv[first_drop + 1] == "ALL"
    added = [argv[place + 1] for place, word in enumerate(argv) if word == "--cap-add"]
    assert added == list(capabilities.OWNER_CAPABILITIES)
    assert first_drop < argv.index("--cap-add")
    assert "CAP_MKNOD" not in added


def test_without_root_there_is_a_user_namespace_and_no_capability() -> None:
    argv = wrapped(capabilities=None)
    assert "--unshare-user" in argv
    assert "--cap-add" not in argv


def test_the_staging_directory_is_shown_after_all_that_could_cover_it() -> None:
    argv = wrapped(hidden=[Path("/usr/local/turku")])
    last = max(place for place, word in enumerate(argv) if word in ("--tmpfs", "--ro-bind", "--ro-bind-try", "--dev"))
    assert argv.index("--bind") > last


def test_directories_of_ours_inside_the_system_are_covered() -> None:
    argv = wrapped(hidden=[Path("/usr/local/turku")])
    assert argv[argv.index("/usr/local/turku") - 1] == "--tmpfs"


def test_the_kernels_settings_are_read_only() -> None:
    argv = wrapped()
    assert argv[argv.index("--remount-ro") + 1] == "/proc"
    assert argv.index("--remount-ro") > argv.index("--proc")


def test_the_command_comes_last_and_unchanged() -> None:
    argv = wrapped()
    assert argv[argv.index("--") + 1 :] == ["rsync", "--archive"]


def test_no_option_sets_the_environment_where_other_users_could_read_it() -> None:
    assert "--setenv" not in wrapped()


# --- the system call filter, run by a small interpreter of its instructions


ALLOW, REFUSED, NO_SUCH_CALL, NO_SUCH_FAMILY = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050061
X86_64, AARCH64 = 0xC000003E, 0xC00000B7
CLONE, SOCKET, IOCTL = 56, 41, 16


def verdict(content: bytes | None, architecture: int, number: int, *arguments: int) -> int:
    assert content is not None
    steps = list(struct.iter_unpack("=HBBI", content))
    data = {0: number & 0xFFFFFFFF, 4: architecture}
    for position in range(6):
        value = arguments[position] if position < len(arguments) else 0
        data |= {16 + 8 * position: value & 0xFFFFFFFF, 20 + 8 * position: value >> 32 & 0xFFFFFFFF}
    place = accumulator = 0
    for _ in itertools.repeat(None, 5000):
        code, if_true, if_false, operand = steps[place]
        place += 1
        if code == 0x20:
            accumulator = data[operand]
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x05:
            place += operand
        elif code == 0x06:
            return int(operand)
        else:
            holds = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            place += if_true if holds else if_false
    raise AssertionError("the filter does not end")


def by_library() -> bytes:
    try:
        return seccomp._by_library()
    except OSError:
        pytest.skip("libseccomp2 is not installed")


@pytest.fixture(params=["table", "library"])
def x86_64(request: pytest.FixtureRequest) -> bytes:
    """The filter for that processor, as each of the ways makes it."""
    if request.param != "table" and platform.machine() != "x86_64":
        pytest.skip("libseccomp makes one for the processor it runs on")
    made = {"table": lambda: seccomp.table_filter("x86_64"), "library": by_library}
    content = made[request.param]()
    assert content is not None
    return content


AARCH64_FILTER = seccomp.table_filter("aarch64")


def test_calls_of_a_file_receiver_pass(x86_64: bytes) -> None:
    for number in (0, 1, 2, 9, 257, 82, 86, 90, 92, 133, 188, 262, 316):
        assert verdict(x86_64, X86_64, number) == ALLOW
    assert verdict(AARCH64_FILTER, AARCH64, 56) == ALLOW


def test_mounts_namespaces_and_other_processes_are_refused(x86_64: bytes) -> None:
    for number in (101, 155, 161, 165, 166, 250, 272, 304, 308, 310, 321, 425, 428, 430, 443, 467, 469):
        assert verdict(x86_64, X86_64, number) == REFUSED, number
    for number in (40, 97, 117, 268, 280, 425, 443, 467, 469):
        assert verdict(AARCH64_FILTER, AARCH64, number) == REFUSED, number


def test_a_process_may_be_made_but_not_a_namespace(x86_64: bytes) -> None:
    assert verdict(x86_64, X86_64, CLONE, 0x01200011) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(x86_64, X86_64, CLONE, flag | 0x11) == REFUSED
    assert verdict(AARCH64_FILTER, AARCH64, 220, 0x10000011) == REFUSED
    assert verdict(x86_64, X86_64, 435) == NO_SUCH_CALL


def test_only_ordinary_sockets_are_made(x86_64: bytes) -> None:
    above = 0xABCD << 32
    for family in range(70):
        expected = ALLOW if family in (1, 2, 10) else NO_SUCH_FAMILY
        # The kernel looks at the lower word alone.
        assert verdict(x86_64, X86_64, SOCKET, family) == expected, family
        assert verdict(x86_64, X86_64, SOCKET, family | above) == expected, family
        assert verdict(AARCH64_FILTER, AARCH64, 198, family) == expected, family
    assert verdict(x86_64, X86_64, SOCKET, 0x80000001) == NO_SUCH_FAMILY


FORBIDDEN_IOCTLS = {
    "BTRFS_IOC_SNAP_CREATE": 0x50009401,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "BTRFS_IOC_SNAP_DESTROY": 0x5000940F,
    "BTRFS_IOC_DEFAULT_SUBVOL": 0x40089413,
    "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "BTRFS_IOC_SUBVOL_CREATE_V2": 0x50009418,
    "BTRFS_IOC_SUBVOL_SETFLAGS": 0x4008941A,
    "BTRFS_IOC_SET_RECEIVED_SUBVOL": 0xC0C89425,
    "BTRFS_IOC_SET_RECEIVED_SUBVOL_32": 0xC0C09425,
    "BTRFS_IOC_SEND": 0x40489426,
    "BTRFS_IOC_SNAP_DESTROY_V2": 0x5000943F,
    "BTRFS_IOC_ENCODED_WRITE": 0x40809440,
    "FICLONE": 0x40049409,
    "FICLONERANGE": 0x4020940D,
    "FIDEDUPERANGE": 0xC0189436,
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC32_SETFLAGS": 0x40046602,
    "FS_IOC_FSSETXATTR": 0x401C5820,
    "FS_IOC_ENABLE_VERITY": 0x40806685,
    "FS_IOC_SET_ENCRYPTION_POLICY": 0x800C6613,
    "FIFREEZE": 0xC0045877,
    "XFS_IOC_SWAPEXT": 0xC0C0586D,
    "EXT4_IOC_MOVE_EXT": 0xC028660F,
    "LOOP_SET_FD": 0x4C00,
    "SIOCSIFFLAGS": 0x8914,
    "TIOCSTI": 0x5412,
    "TIOCLINUX": 0x541C,
}
ORDINARY_IOCTLS = {"TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIOCLEX": 0x5451}


def test_no_ioctl_passes_but_those_of_terminals_and_pipes(x86_64: bytes) -> None:
    for name, request in FORBIDDEN_IOCTLS.items():
        for given in (request, request | 0xFFFFFFFF << 32):
            assert verdict(x86_64, X86_64, IOCTL, 3, given) == REFUSED, name
            assert verdict(AARCH64_FILTER, AARCH64, 29, 3, given) == REFUSED, name
    for name, request in ORDINARY_IOCTLS.items():
        assert verdict(x86_64, X86_64, IOCTL, 3, request) == ALLOW, name
        assert verdict(AARCH64_FILTER, AARCH64, 29, 3, request) == ALLOW, name


def test_another_calling_convention_is_refused_whole(x86_64: bytes) -> None:
    assert verdict(x86_64, 0x40000003, 1) == REFUSED
    assert verdict(x86_64, X86_64, 0x40000000 | 1) == REFUSED
    assert verdict(x86_64, X86_64, 0x40000000 | 514, 3, 0x4008941A) == REFUSED


def test_the_ways_to_make_a_filter_judge_alike() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("libseccomp makes one for the processor it runs on")
    table, library = seccomp.table_filter("x86_64"), by_library()
    for number in range(600):
        for argument in (0, 1, 2, 3, 0x11, 100, 101, 0x10000011, 0x5401, 0x4008941A):
            arguments = (argument, argument, argument)
            assert verdict(table, X86_64, number, *arguments) == verdict(library, X86_64, number, *arguments), number


def test_the_table_has_every_call_of_the_rules() -> None:
    names = {rule.call for rule in seccomp.rules("x86_64")}
    assert names == {*seccomp._CALLS, *seccomp._COMMON, "clone3", "clone", "socket", "ioctl", "madvise"}


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor that neither libseccomp nor the table knows."""

    def unknown() -> bytes:
        raise OSError("libseccomp.so.2: cannot open shared object file")

    monkeypatch.setattr(seccomp, "_by_library", unknown)
    monkeypatch.setattr(seccomp, "table_filter", lambda _machine: None)
    caches = (seccomp.available_filter, bubblewrap._warn_of_no_filter)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


def test_the_table_is_for_where_libseccomp_is_not(monkeypatch: pytest.MonkeyPatch, nothing_known: None) -> None:
    monkeypatch.setattr(seccomp, "table_filter", lambda _machine: b"12345678")
    found = seccomp.available_filter()
    assert found is not None
    assert found.maker == "a table"


@pytest.mark.usefixtures("nothing_known")
def test_no_session_is_silently_without_a_filter(caplog: pytest.LogCaptureFixture) -> None:
    assert seccomp.table_filter("riscv64") is None
    with ExitStack() as stack:
        for _ in range(3):
            assert bubblewrap.syscall_filter(stack) == ((), ())
    [record] = [record for record in caplog.records if "no system-call filter" in record.message]
    assert record.levelname == "WARNING"
    assert "install libseccomp2" in record.message


@pytest.mark.usefixtures("nothing_known")
def test_a_processor_without_a_filter_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bubblewrap, "sandbox_availability", lambda _configuration: bubblewrap.SandboxAvailability(True, "works")
    )
    fact = host._filter(storage_configuration(tmp_path).limits)
    assert fact.verdict is Verdict.FAIL
    assert "install libseccomp2" in fact.text


def test_a_filter_that_is_in_force_says_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bubblewrap, "sandbox_availability", lambda _configuration: bubblewrap.SandboxAvailability(True, "works")
    )
    monkeypatch.setattr(seccomp, "available_filter", lambda: seccomp.SyscallFilter(b"", "libseccomp"))
    fact = host._filter(storage_configuration(tmp_path).limits)
    assert fact.verdict is Verdict.OK
    assert "made by libseccomp" in fact.text
    monkeypatch.setattr(
        bubblewrap, "sandbox_availability", lambda _configuration: bubblewrap.SandboxAvailability(False, "is off")
    )
    assert host._filter(storage_configuration(tmp_path).limits).verdict is Verdict.WARN
