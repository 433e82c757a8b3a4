"""The text of rsyncd.conf: nothing in it is anybody's but ours."""

from pathlib import Path

from turku.agent.rsyncd.config_text import Module, ModuleSection, render
from turku.agent.rsyncd.daemon import can_change_root


def text(*modules: Module, user_and_group: tuple[str, str] | None = ("root", "*")) -> list[str]:
    return render(
        [ModuleSection(module, Path(f"/run/{number}")) for number, module in enumerate(modules)],
        address="127.0.0.2",
        port=50000,
        lock_file=Path("/run/lock"),
        user_and_group=user_and_group,
        change_root=user_and_group is not None,
        connections=4,
        settings={},
    ).splitlines()


def test_modules_are_read_only_each_with_its_own_credentials() -> None:
    one, two = Module("one", "/1"), Module("two", "/2")
    lines = text(one, two)
    start = lines.index("[one]")
    assert lines[start:] == [
        *("[one]", "path = /1/", "read only = yes", f"auth users = {one.username}", "secrets file = /run/0"),
        *("[two]", "path = /2/", "read only = yes", f"auth users = {two.username}", "secrets file = /run/1"),
    ]
    assert one.username != two.username
    assert one.password != two.password
    assert len(one.password.reveal()) == 30
    assert one.password.reveal() not in "\n".join(lines)


def test_nothing_is_listed_and_only_this_machine_may_connect() -> None:
    lines = text(Module("etc", "/etc"))
    for line in ("list = no", "address = 127.0.0.2", "port = 50000", "munge symlinks = no", "strict modes = yes"):
        assert line in lines
    assert "hosts allow = 127.0.0.0/8 ::1 127.0.0.2" in lines


def test_root_is_locked_into_the_module_and_others_cannot_be() -> None:
    assert {"uid = backup", "gid = *", "use chroot = yes"} <= set(text(user_and_group=("backup", "*")))
    unprivileged = text(user_and_group=None)
    assert "use chroot = no" in unprivileged
    assert not [line for line in unprivileged if line.startswith(("uid", "gid"))]


def test_only_a_restore_module_is_writable() -> None:
    assert "read only = no" in text(Module("turku-restore", "/r", writable=True))


def test_paths_are_written_so_that_rsyncd_reads_them_back() -> None:
    def path(text_of_path: str) -> str:
        (line,) = [line for line in text(Module("m", text_of_path)) if line.startswith("path")]
        return line.removeprefix("path = ")

    assert path("/") == "/"
    assert path("//a//b/./c/") == "/a/b/c/"
    assert path("/a/../b") == "/a/../b/"
    assert path("/trailing ") == "/trailing /"
    assert path("/%HOME%") == "/%TURKU_PERCENT%HOME%TURKU_PERCENT%/"


def test_it_is_locked_into_its_modules_by_whoever_can(tmp_path: Path) -> None:
    status = tmp_path / "status"
    for capabilities, can in (("0000000000040004", True), ("0000000000000004", False), ("000001ffffffffff", True)):
        status.write_text(f"Name:\tturku\nCapPrm:\t0000000000000000\nCapEff:\t{capabilities}\n")
        assert can_change_root(status) is can
    module = Module("etc", "/etc")
    for change_root, line in ((True, "use chroot = yes"), (False, "use chroot = no")):
        written = render(
            [ModuleSection(module, Path("/run/0"))],
            address="127.0.0.1",
            port=50000,
            lock_file=Path("/run/lock"),
            user_and_group=None,
            change_root=change_root,
            connections=4,
            settings={},
        ).splitlines()
        assert line in written
        assert not any(word.startswith("uid") for word in written)
