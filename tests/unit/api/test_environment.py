"""The coordinator's settings from its environment."""

from pathlib import Path

import pytest

from turku.api.configuration import environment, key_file
from turku.errors import ConfigurationError


def test_nothing_set_means_sqlite_on_loopback() -> None:
    settings = environment.read({})
    assert settings.errors == ()
    assert settings.database == environment.DatabaseSettings("sqlite3", "/var/lib/turku-api/db.sqlite3")
    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert (settings.time_zone, settings.debug, settings.hash_key_is_local) == ("UTC", False, True)


def test_all_mistakes_are_reported_together() -> None:
    settings = environment.read(
        {
            "TURKU_STATE_DIR": "relative",
            "TURKU_DATABASE_URL": "mysql://x:y@z/w",
            "TURKU_ALLOWED_HOSTS": "*",
            "TURKU_TIME_ZONE": "Europe/Atlantis",
            "TURKU_DEBUG": "maybe",
            "TURKU_CSRF_TRUSTED_ORIGINS": "turku.example.com",
            "TURKU_SECRET_KEY": "short",
            "TURKU_SECRET_KEY_FILE": "/x",
        }
    )
    assert sorted(mistake.id for mistake in settings.errors) == [
        *("turku.E001", "turku.E002", "turku.E003", "turku.E004", "turku.E005"),
        *("turku.E006", "turku.E007", "turku.E009"),
    ]


def test_debug_is_for_loopback_only() -> None:
    settings = environment.read({"TURKU_DEBUG": "1", "TURKU_ALLOWED_HOSTS": "turku.example.com"})
    assert [mistake.id for mistake in settings.errors] == ["turku.E008"]
    assert environment.read({"TURKU_DEBUG": "1"}).errors == ()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///var/x.db", ("sqlite3", "/var/x.db", "", "", "")),
        ("sqlite:////var/x.db", ("sqlite3", "/var/x.db", "", "", "")),
        ("postgresql://u:p%40ss@db.example.com:5433/turku", ("postgresql", "turku", "u", "db.example.com", "5433")),
        ("postgres://u@/turku?host=/run/postgresql", ("postgresql", "turku", "u", "/run/postgresql", "")),
        ("postgresql:///turku?host=/run/pg&sslmode=require", ("postgresql", "turku", "", "/run/pg", "")),
    ],
)
def test_database_urls(url: str, expected: tuple[str, ...]) -> None:
    database = environment.parse_database_url(url)
    assert (database.engine, database.name, database.user, database.host, database.port) == expected


def test_passwords_and_options_of_database_urls() -> None:
    database = environment.parse_database_url("postgresql://u:p%40ss@h/turku?sslmode=require")
    assert database.password.reveal() == "p@ss"
    assert dict(database.options) == {"sslmode": "require"}
    assert "p@ss" not in repr(database)


@pytest.mark.parametrize("url", ["", "turku", "sqlite://host/x", "sqlite:///", "postgresql://h", "postgresql://h:x/y"])
def test_bad_database_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        environment.parse_database_url(url)


def test_a_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigurationError, match="is missing") as raised:
        key_file.read(path)
    assert "restore its copy" in raised.value.hint
    key_file.generate_if_missing(path)
    first = key_file.read(path)
    assert len(first.reveal()) == key_file.KEY_LENGTH
    assert path.stat().st_mode & 0o777 == 0o600
    key_file.generate_if_missing(path)
    assert key_file.read(path) == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key_file.generate_if_missing(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="0644"):
        key_file.read(path)


def test_an_empty_or_binary_key_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n\n", b"\xff\xfe"):
        path = tmp_path / "key"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError):
            key_file.read(path)


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("sqlite:///var/lib/turku-api/db.sqlite3", False),
        ("postgresql:///turku?host=/run/postgresql", False),
        ("postgresql://turku:x@127.0.0.1/turku", False),
        ("postgresql://turku:x@db.example.com/turku", True),
    ],
)
def test_only_a_database_of_the_network_can_be_shared_with_other_coordinators(url: str, shared: bool) -> None:
    assert environment.parse_database_url(url).is_shared is shared


@pytest.mark.parametrize("content", [b"\0" * 64, b"a" * 64, b"key\0" * 16, b"\x01\x02\x03\x04\x05\x06\x07\x08" * 8])
def test_a_key_file_that_a_disk_damaged_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret_key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="is damaged") as raised:
        key_file.read(path)
    assert "backup" in raised.value.hint
