"""The bubblewrap argument list: what a receiver is shown, and what it keeps."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

from turku.storage import sandbox, system_call_filter

MACHINE = Path("/srv/turku/9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d")
STAGING, BASE = MACHINE / "etc.snapshots" / ".staging", MACHINE / "etc.snapshots" / "etc_20260131-120000_0a1b"


def wrapped(capabilities: tuple[str, ...] | None = sandbox.OWNER_CAPABILITIES, **keywords: list[Path]) -> list[str]:
    return sandbox.wrap(
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
    assert added == list(sandbox.OWNER_CAPABILITIES)
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


def verdict(machine: str, architecture: int, number: int, argument: int = 0) -> int:
    content = system_call_filter.program(machine)
    assert content is not None
    steps = list(struct.iter_unpack("=HBBI", content))
    data = {0: number, 4: architecture, 16: argument}
    place = accumulator = 0
    for _ in itertools.repeat(None, 1000):
        code, if_true, if_false, operand = steps[place]
        place += 1
        if code == 0x20:
            accumulator = data[operand]
        elif code == 0x06:
            return int(operand)
        else:
            holds = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[
                code
            ]
            place += if_true if holds else if_false
    raise AssertionError("the filter does not end")


ALLOW, REFUSED, NO_SUCH_CALL, NO_SUCH_FAMILY = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050061
X86_64, AARCH64 = 0xC000003E, 0xC00000B7


def test_calls_of_a_file_receiver_pass() -> None:
    for number in (0, 1, 2, 9, 257, 82, 86, 90, 92, 133, 188, 262, 316):
        assert verdict("x86_64", X86_64, number) == ALLOW
    assert verdict("aarch64", AARCH64, 56) == ALLOW


def test_mounts_namespaces_and_other_processes_are_refused() -> None:
    for number in (101, 155, 161, 165, 166, 250, 272, 304, 308, 310, 321, 425, 428, 430):
        assert verdict("x86_64", X86_64, number) == REFUSED
    for number in (40, 97, 117, 268, 280, 425):
        assert verdict("aarch64", AARCH64, number) == REFUSED


def test_a_process_may_be_made_but_not_a_namespace() -> None:
    assert verdict("x86_64", X86_64, 56, 0x01200011) == ALLOW
    assert verdict("x86_64", X86_64, 56, 0x10000011) == REFUSED
    assert verdict("aarch64", AARCH64, 220, 0x10000011) == REFUSED
    assert verdict("x86_64", X86_64, 435) == NO_SUCH_CALL


def test_only_ordinary_sockets_are_made() -> None:
    for family in (1, 2, 10):
        assert verdict("x86_64", X86_64, 41, family) == ALLOW
    for family in (16, 17, 38, 40):
        assert verdict("x86_64", X86_64, 41, family) == NO_SUCH_FAMILY


def test_another_calling_convention_is_refused_whole() -> None:
    assert verdict("x86_64", 0x40000003, 1) == REFUSED
    assert verdict("x86_64", X86_64, 0x40000000 | 1) == REFUSED


def test_an_unknown_processor_has_no_filter() -> None:
    assert system_call_filter.program("riscv64") is None
