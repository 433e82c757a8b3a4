"""Files with secrets that others may read, as an editor or ``cat > file`` leaves them."""

import os
from pathlib import Path

import pytest

from turku.core.configuration import exposed_secrets


@pytest.mark.parametrize(
    ("text", "is_secret"),
    [
        ('{"secret": "x"}', True),
        ('{"machine_secret": "x"}', True),
        ('{"api_auth": "x"}', True),
        ('{"api_auth_name": "x"}', False),
        ("password: x", True),
        ("TURKU_DATABASE_URL=postgresql://turku:x@db/turku", True),
        ("TURKU_DATABASE_URL=postgresql://turku@db/turku", False),
        ('{"api_url": "https://turku.example.com:443/v1"}', False),
    ],
)
def test_a_file_is_known_by_what_it_names(text: str, is_secret: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    path.chmod(0o644)
    found = list(exposed_secrets.in_directories([tmp_path, tmp_path / "missing"]))
    assert [file.path for file in found] == [path] * is_secret
    assert all("0644 lets others in: chmod 0600" in file.fault for file in found)


def test_a_private_file_has_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"secret": "x"}')
    path.chmod(0o600)
    assert [file.fault for file in exposed_secrets.in_directories([tmp_path])] == [""]
    path.chmod(0o640)
    assert [bool(file.fault) for file in exposed_secrets.of_files([path])] == [True]
    assert [bool(file.fault) for file in exposed_secrets.of_files([path], allowed_mode=0o640)] == [False]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_another_user_in_a_directory_of_root_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"secret": "x"}')
    path.chmod(0o600)
    os.chown(path, 1, 1)
    assert "belongs to user 1" in next(exposed_secrets.of_files([path])).fault
    os.chown(tmp_path, 1, 1)
    assert next(exposed_secrets.of_files([path])).fault == ""
