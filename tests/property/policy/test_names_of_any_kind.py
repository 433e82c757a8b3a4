"""Whatever comes in as a name, a key or a limit, what comes out is safe where it goes."""

import base64
import os.path
import unicodedata
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy import names
from turku.policy.bandwidth import kib_per_second
from turku.policy.ssh_key import ssh_host_key, ssh_public_key

ZONE = ZoneInfo("America/New_York")
any_text = st.text(st.characters(), max_size=300) | st.text(st.characters(), max_size=5)
name_like = st.text("aZ0é_-. /\\[]~@\n\0", max_size=12) | st.sampled_from(["etc", "x.snapshots", "global", "a b"])


@given(any_text | name_like)
def test_a_lawful_source_name_stays_one_entry_of_its_directory(text: str) -> None:
    try:
        name = names.source_name(text)
    except InvalidValue:
        return
    assert name == text
    assert os.path.normpath(os.path.join("/machine", name)) == f"/machine/{name}"
    assert os.path.dirname(os.path.join("/machine", name)) == "/machine"
    assert name[0] not in ".-#"
    assert not set(name) & set("/\\[]\0\n\r\"'`$*?%;&|<>")
    assert not any(unicodedata.category(character).startswith("C") for character in name)
    assert " ".join(name.split()) == name
    assert len(name.encode()) <= names.SOURCE_NAME_LIMIT_BYTES
    assert not name.casefold().endswith(".snapshots")


@given(st.lists(name_like, max_size=6))
def test_no_two_lawful_names_are_one_to_any_file_system(texts: list[str]) -> None:
    try:
        lawful = names.source_names(texts)
    except InvalidValue:
        return
    assert list(lawful) == texts
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        forms = {unicodedata.normalize(form, name).casefold() for name in lawful}
        assert len(forms) == len(lawful)


@given(any_text)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert names.fold(names.fold(text)) == names.fold(text)


@given(any_text | name_like, any_text | name_like | st.none(), any_text | name_like)
@example(None, None, "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d")
def test_a_name_link_is_one_entry_and_never_a_machines_own(
    environment: str | None, service: str | None, unit: str | None
) -> None:
    link = names.machine_link_name(environment_name=environment, service_name=service, unit_name=unit)
    if link is None:
        return
    assert "/" not in link
    assert link not in ("", ".", "..")
    assert link.isprintable() or not any(unicodedata.category(character) in ("Cc", "Cs") for character in link)
    assert len(link.encode()) <= 255
    try:
        names.machine_uuid(link)
    except InvalidValue:
        return
    raise AssertionError(f"{link} is a UUID")


@given(any_text)
def test_labels_are_one_line(text: str) -> None:
    try:
        label = names.label(text, kind="comment")
    except InvalidValue:
        return
    assert len(label.splitlines()) <= 1
    assert len(label) <= names.NAME_LIMIT
    label.encode()


@given(any_text)
def test_hosts_users_and_uuids_are_plain_words(text: str) -> None:
    for check in (names.host_name, names.user_name, names.machine_uuid):
        try:
            word = check(text)
        except InvalidValue:
            continue
        assert word.isascii()
        assert word.split() == [word]
        assert word[0] != "-"


@given(
    st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1), timezones=st.just(ZONE)),
    st.sampled_from(["etc", "a_b", "x_20200101-000000_ffff", "savegames", "ü", "1424402436"]),
    st.from_regex(r"[0-9a-f]{4}", fullmatch=True),
)
def test_a_snapshots_name_gives_its_moment_back(moment: datetime, source: str, suffix: str) -> None:
    name = names.new_snapshot_name(source, moment, suffix)
    parsed = names.parse_snapshot_name(name, source=source, zone=ZONE)
    assert parsed.moment == moment.replace(microsecond=0, fold=0).astimezone(UTC)
    assert not parsed.is_held


@given(any_text, name_like)
def test_any_snapshot_name_is_read_without_an_error(name: str, source: str) -> None:
    parsed = names.parse_snapshot_name(name, source=source, zone=ZONE)
    assert parsed.moment is None or parsed.moment.tzinfo is UTC


@given(any_text | st.builds("ssh-ed25519 {} {}".format, st.text("AbC0+/=", max_size=80), any_text))
def test_a_text_that_is_taken_for_a_key_is_one(text: str) -> None:
    for parse in (ssh_public_key, ssh_host_key):
        try:
            key = parse(text)
        except InvalidValue:
            continue
        key_type, encoded = key.line.split(" ")
        assert key_type.encode() in base64.b64decode(encoded, validate=True)


@given(st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.lists(st.integers()))
def test_a_limit_is_a_positive_whole_number_or_none(value: object) -> None:
    try:
        limit = kib_per_second(value)
    except InvalidValue:
        return
    assert limit is None or (type(limit) is int and 0 < limit <= 2**31)
