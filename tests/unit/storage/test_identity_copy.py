"""The storage's own secret is kept twice. One that a disk damaged comes back, and is never drawn anew."""

import json
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.errors import ConfigurationError
from turku.storage.config import loading as configuration

DAMAGES = {"emptied": b"", "NUL bytes": b"\0" * 130, "cut off": b'{\n    "secr', "another's": b'{"unrelated": 1}'}


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "config.d" / "config.json"
    storage_configuration(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("name", "secret")}))
    configuration.load(tmp_path)
    return tmp_path / "var" / "config.d" / configuration.GENERATED_FILE


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_secret_is_repaired_from_its_copy(tmp_path: Path, identity: Path, damage: bytes) -> None:
    before = configuration.load(tmp_path)
    identity.write_bytes(damage)
    shown, _files = configuration.load_with_files(tmp_path, writes_identity=False)
    assert (shown.identity.name, shown.identity.secret) == (before.identity.name, before.identity.secret)
    assert identity.read_bytes() == damage
    after = configuration.load(tmp_path)
    assert (after.identity.name, after.identity.secret.reveal()) == (
        before.identity.name,
        before.identity.secret.reveal(),
    )
    assert json.loads(identity.read_text())["secret"] == before.identity.secret.reveal()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_without_a_copy_it_is_named_and_not_drawn_anew(tmp_path: Path, identity: Path, damage: bytes) -> None:
    for path in (identity, identity.parent.parent / f"{identity.name}.copy"):
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(damage)
    with pytest.raises(ConfigurationError, match=f"{identity}: is damaged"):
        configuration.load(tmp_path)
    assert identity.read_bytes() == damage
    identity.unlink()
    assert configuration.load(tmp_path).identity.secret
