"""C2: whoever reads the whole database of a coordinator has no secret, and cannot test guesses without its key file."""

import hashlib

from tests.support.http_cast import SOURCES, HttpCast
from tests.support.v1_client import V1Machine, ask


def database(cast: HttpCast) -> bytes:
    """Every byte of the database, what is still in the write-ahead log included."""
    return b"".join(path.read_bytes() for path in sorted(cast.coordinator.state_dir.glob("db.sqlite3*")))


def test_c2_no_secret_is_in_the_database(cast: HttpCast) -> None:
    rotated = "R0tated" + cast.alice.secret[7:]
    message = {"machine": {"uuid": cast.alice.uuid, "secret": cast.alice.secret}, "new_secret": rotated}
    ask(cast.post, "machine_rotate", message)
    code = cast.coordinator.manage("machine", "re-enrol", cast.alice.uuid, "--raw").strip()
    reinstalled = V1Machine(cast.post, uuid="")
    new = {"code": code, "secret": reinstalled.secret, "ssh_public_key": reinstalled.ssh_public_key}
    ask(cast.post, "machine_reenrol", new)
    secrets = [cast.alice.secret, rotated, reinstalled.secret, code, cast.bob.secret]
    secrets += [cast.machine_auth["secret"], cast.storage_auth["secret"]]
    content = database(cast)
    assert cast.alice.uuid.replace("-", "").encode() in content, "it is the right file"
    for secret in secrets:
        assert secret.encode() not in content


def test_c2_hashes_depend_on_a_key_outside_the_database(cast: HttpCast) -> None:
    stored = cast.machine_row()["secret_hash"].partition(":")[2]
    for text in (cast.alice.secret, f"machine:{cast.alice.secret}"):
        for algorithm in ("md5", "sha1", "sha256", "sha512", "blake2b"):
            assert hashlib.new(algorithm, text.encode()).hexdigest() != stored
    key = (cast.coordinator.state_dir / "hash_key").read_text().strip()
    assert key.encode() not in database(cast)
    assert (cast.coordinator.state_dir / "hash_key").stat().st_mode & 0o077 == 0


def test_c2_equal_secrets_have_different_hashes_for_different_purposes(cast: HttpCast) -> None:
    storage = cast.storage(secret=cast.alice.secret)
    storage.update_config()
    cast.alice.update_config(SOURCES)
    (row,) = cast.rows("SELECT secret_hash FROM fleet_storage WHERE name = ?", storage.name)
    assert row["secret_hash"] != cast.machine_row()["secret_hash"]
