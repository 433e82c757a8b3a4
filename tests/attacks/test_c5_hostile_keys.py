"""C5: a compromised coordinator adds no key, option or line to authorized_keys beyond the machines it names.

Real `turku-storage-update-config` against an API that sends what it likes, and a real sshd that reads the file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.support.hostile_keys import HOSTILE_KEYS
from tests.support.ordered_storage import UUID, OrderedStorage, ordered_storage
from tests.support.v1_client import A_KEY, new_ssh_key

from turku.core import command

OTHER = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
LAWFUL_LINE = re.compile(
    r'restrict,port-forwarding,permitlisten="localhost:\*",permitopen="255\.255\.255\.255:1",'
    r'command="[^"]+turku-storage-ping [0-9a-f-]{36} --config-dir [^"]+" '
    r"ssh-ed25519 [A-Za-z0-9+/]+={0,2} turku:[0-9a-f-]{36}"
)
HOSTILE_UUIDS = {
    "up": "../../x",
    "a line break": f"{UUID}\nssh-ed25519 AAAA",
    "a quote": f'{UUID}" ssh-ed25519 AAAA',
    "a shell's word": f"{UUID}; touch /tmp/turku-c5 #",
    "a substitution": "$(touch /tmp/turku-c5)",
    "an option": "--debug",
    "empty": "",
    "braces": "{" + UUID + "}",
    "long": UUID + "0" * 5000,
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedStorage]:
    directory = tmp_path_factory.mktemp("ordered")
    with ordered_storage(directory, {"etc": directory}) as running:
        yield running


def update(storage: OrderedStorage, machines: dict[str, Any]) -> None:
    storage.api.answers["storage_update_config"] = {"machines": machines}
    storage.host.update_config()


def log_in(storage: OrderedStorage, word: str) -> command.CompletedProgram:
    argv = storage.host.sshd.client(storage.key, command=(word,))
    return command.run(argv, timeout_seconds=30, input_bytes=b"", check=False)


def test_c5_a_lawful_answer_makes_a_lawful_line(storage: OrderedStorage) -> None:
    update(storage, {UUID: {"ssh_public_key": storage.public_key}})
    (line,) = storage.host.lines
    assert LAWFUL_LINE.fullmatch(line)


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_c5_a_text_that_is_not_one_key_is_left_out_and_the_others_stay(storage: OrderedStorage, key: str) -> None:
    update(storage, {OTHER: {"ssh_public_key": key}, UUID: {"ssh_public_key": storage.public_key}})
    (line,) = storage.host.lines
    assert LAWFUL_LINE.fullmatch(line)
    assert UUID in line
    assert OTHER not in storage.host.authorized_keys.read_text()


@pytest.mark.parametrize("uuid", HOSTILE_UUIDS.values(), ids=HOSTILE_UUIDS)
def test_c5_a_text_that_is_no_uuid_becomes_neither_line_nor_command_nor_link(
    storage: OrderedStorage, uuid: str
) -> None:
    update(storage, {uuid: {"ssh_public_key": new_ssh_key(), "unit_name": "web"}})
    assert storage.host.lines == []
    assert list((storage.host.var_dir / "machines").iterdir()) == []
    assert not Path("/tmp/turku-c5").exists()


def test_c5_options_before_a_key_open_nothing(storage: OrderedStorage, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    update(storage, {UUID: {"ssh_public_key": f'command="touch {planted}" {storage.public_key}'}})
    assert log_in(storage, "true").exit_code == 255
    update(storage, {UUID: {"ssh_public_key": f'{storage.public_key} command="touch {planted}"'}})
    completed = log_in(storage, f"touch {planted}")
    assert "error [malformed-message]" in "\n".join(completed.last_lines)
    assert not planted.exists()


def test_c5_a_key_of_the_operator_does_not_become_a_machines(storage: OrderedStorage) -> None:
    static = storage.host.authorized_keys.with_name("authorized_keys.static")
    static.write_text(f"{A_KEY}\n")
    try:
        update(storage, {UUID: {"ssh_public_key": A_KEY}})
        assert storage.host.lines == [A_KEY]
    finally:
        static.write_text("")


def test_c5_one_machines_key_does_not_become_anothers(storage: OrderedStorage) -> None:
    update(storage, {UUID: {"ssh_public_key": storage.public_key}})
    update(storage, {OTHER: {"ssh_public_key": storage.public_key}, UUID: {"ssh_public_key": storage.public_key}})
    (line,) = storage.host.lines
    assert line.endswith(f"turku:{UUID}")


@pytest.mark.parametrize(
    "name", ["../../planted", "x/../../../planted", "{elsewhere}/planted", "..", ".", OTHER, "a\nb", "x" * 300]
)
def test_c5_names_lead_no_link_elsewhere(storage: OrderedStorage, tmp_path: Path, name: str) -> None:
    update(storage, {})
    (storage.host.volume / UUID).mkdir(exist_ok=True)
    (storage.host.var_dir / "machines" / "x").mkdir(exist_ok=True)
    unit_name = name.replace("{elsewhere}", str(tmp_path))
    update(storage, {UUID: {"ssh_public_key": storage.public_key, "unit_name": unit_name}})
    (storage.host.var_dir / "machines" / "x").rmdir()
    links = storage.host.var_dir / "machines"
    for link in links.iterdir():
        assert link.is_symlink()
        assert link.resolve() == storage.host.volume / UUID
        assert link.name != OTHER
    assert list(tmp_path.iterdir()) == []
    assert not (storage.host.var_dir.parent / "planted").is_symlink()


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"null", b"{", b'{"machines": []}', b'{"machines": {"x": {"ssh_public_key": 1}}}', b"[" * 100_000],
    ids=repr,
)
def test_c5_an_answer_that_is_none_changes_nothing(storage: OrderedStorage, answer: bytes) -> None:
    update(storage, {UUID: {"ssh_public_key": storage.public_key}})
    before = storage.host.authorized_keys.read_bytes()
    storage.api.answers["storage_update_config"] = answer
    completed = storage.host.update_config(check=False)
    assert completed.exit_code not in (0, 70)
    assert storage.host.authorized_keys.read_bytes() == before


def test_c5_an_answer_without_machines_empties_nothing(storage: OrderedStorage) -> None:
    update(storage, {UUID: {"ssh_public_key": storage.public_key}})
    before = storage.host.authorized_keys.read_bytes()
    answer: object
    for answer in ({}, {"machines": None}, {"machines": {UUID: {}}}):
        storage.api.answers["storage_update_config"] = answer
        # An answer that is not ours.
        assert storage.host.update_config(check=False).exit_code == 69
        assert storage.host.authorized_keys.read_bytes() == before


def test_c5_an_answer_that_lacks_most_machines_waits_for_a_second_one(storage: OrderedStorage) -> None:
    fleet = {str(uuid4()): {"ssh_public_key": new_ssh_key()} for _ in range(3)}
    update(storage, {UUID: {"ssh_public_key": storage.public_key}, **fleet})
    update(storage, {})
    assert len(storage.host.lines) == 4
    assert "lacks 4 of the 4 machines" in storage.host.log
    update(storage, {})
    assert len(storage.host.lines) == 4
    # What the coordinator is told of it.
    [fault] = storage.api.of_call("storage_update_config")[-1]["storage"]["faults"]
    assert "lacks 4 of the 4 machines" in fault
    storage.host.update_config("--confirm-removals")
    assert storage.host.lines == []
