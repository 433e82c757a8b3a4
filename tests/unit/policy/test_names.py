"""Lawful names, and the paths that they become."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from turku.errors import InvalidValue
from turku.policy import names

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "name",
    [
        *("etc", "a", "0", "_", "web-0", "var.lib.mysql", "my_data", "Documents and Settings", "mysql:dump"),
        *("größe", "données", "备份", "резерв", "हिन्दी", "x" * 175, "a.snapshots.old", "latest", "globals", "con"),
    ],
)
def test_names_that_fleets_use_are_lawful(name: str) -> None:
    assert names.source_name(name) == name
    assert names.storage_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/", "/etc", "a\\b", "\0", "a\0b", "a\nb", "a\r", "a\tb", "a\x1b[2Jb", "a\x7f"),
        *("a\x85b", "a\u2028b", "a\u202eb", "a\u200bb", "a\ud800", "\udcff", "a\u00a0b", "a\u3000b"),
        *(" a", "a ", "a  b", ".hidden", "-rf", "--delete", "~", "@x", "+x", "a]b", "a[b", "a*", "a?", "a$b", "a`b"),
        *("a;b", "a|b", "a&b", "a<b", "a>b", "a'b", 'a"b', "#x", "a%b", "e" * 300, "é" * 88, "\u0301a"),
    ],
)
def test_names_that_could_leave_their_place_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        names.source_name(name)
    if len(name.encode("utf-8", "surrogatepass")) < 176 or len(name) > 200:
        with pytest.raises(InvalidValue):
            names.storage_name(name)


@pytest.mark.parametrize(
    "name", ["etc.snapshots", "x.SNAPSHOTS", "x.\u017fnapshots", "global", "GLOBAL", "\uff47lobal"]
)
def test_a_source_cannot_take_the_place_of_a_history_or_of_a_section(name: str) -> None:
    with pytest.raises(InvalidValue):
        names.source_name(name)


def test_a_refusal_says_which_character_is_wrong_and_which_are_right() -> None:
    with pytest.raises(InvalidValue) as caught:
        names.source_name("a/b")
    assert "U+002F" in caught.value.message
    assert "letters, digits" in caught.value.hint


def test_a_snapshot_of_the_longest_name_fits_where_snapshots_go() -> None:
    longest = names.new_snapshot_name("x" * names.SOURCE_NAME_LIMIT_BYTES, datetime(2026, 1, 1, tzinfo=UTC), "0a1b")
    assert len(longest) <= names.NAME_LIMIT


@pytest.mark.parametrize(
    ("one", "other"),
    [("Data", "data"), ("é", "e\u0301"), ("\ufb01les", "files"), ("straße", "STRASSE"), ("\uff12", "2")],
)
def test_twins_are_refused(one: str, other: str) -> None:
    with pytest.raises(InvalidValue, match="case or spelling"):
        names.source_names([one, "between", other])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(InvalidValue, match="twice"):
        names.source_names(["etc", "etc"])


def test_several_names_are_given_back_in_order_each_checked() -> None:
    assert names.source_names(["etc", "home", "a"]) == ("etc", "home", "a")
    with pytest.raises(InvalidValue):
        names.source_names(["etc", "../etc"])


def test_a_uuid_has_one_form() -> None:
    text = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
    assert names.machine_uuid(text.upper()) == text
    for wrong in ("", "x", text[:-1], text + "\n", f"{{{text}}}", text.replace("-", ""), "../" + text, "٣" + text[1:]):
        with pytest.raises(InvalidValue):
            names.machine_uuid(wrong)


def test_a_label_is_one_line_of_plain_text() -> None:
    assert names.label(" sql-database-regiona/2 ", kind="unit name") == "sql-database-regiona/2"
    assert names.label("naïve 👩‍🔬 'x'", kind="comment") == "naïve 👩‍🔬 'x'"
    for wrong in ("a\nb", "a\r", "\0", "a\u2028b", "a\u202eb", "\ud800", "x" * 201):
        with pytest.raises(InvalidValue):
            names.label(wrong, kind="unit name")
    with pytest.raises(InvalidValue, match="unit name"):
        names.label("a\nb", kind="unit name")


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.example.com", "a.example.com.", "my_host", "127.0.0.1", "::1", "fe80::1%eth0", "xn--nxasmq6b"],
)
def test_hosts_are_lawful(host: str) -> None:
    assert names.host_name(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            ".",
            "-oProxyCommand=x",
            "a b",
            "a\n",
            "a;b",
            "a/b",
            "u@h",
            "[::1]",
            "1.2.3",
            "256.1.1.1",
            "a..b",
            "größe.de",
        ),
        *("fe80::1%e;h", "1.2.3.4%eth0", "x" * 64, "a." * 120, "h:22", "h#", "1"),
    ],
)
def test_a_text_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidValue):
        names.host_name(host)


def test_ports_are_from_1_to_65535() -> None:
    assert [names.port(number) for number in (1, 22, 65535)] == [1, 22, 65535]
    for wrong in (0, -1, 65536, True, 22.0, "22", None, 10**5000):
        with pytest.raises(InvalidValue):
            names.port(wrong)  # type: ignore[arg-type]


def test_user_names() -> None:
    assert names.user_name("turku-storage") == "turku-storage"
    for wrong in ("", "-l", "a b", "a\n", "a:b", "a/b", "$x", "x" * 101, "a;b", "0"):
        with pytest.raises(InvalidValue):
            names.user_name(wrong)


def link(environment: str | None, service: str | None, unit: str | None) -> str | None:
    return names.machine_link_name(environment_name=environment, service_name=service, unit_name=unit)


def test_the_name_link_is_put_together_as_the_contract_says() -> None:
    assert link("production", "sql", "sql/2") == "production-sql-sql_2"
    assert link(None, "sql", "sql/2") == "sql-sql_2"
    assert link("", " ", "web 0") == "web 0"
    assert link("../..", None, "x") is None


@pytest.mark.parametrize(
    "unit",
    [
        *(None, "", " ", ".", "..", "../x", "-x", "a\nb", "a\0", "a\u202eb", "x" * 300, "\ud800"),
        *("9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "9BEF0A75-5A9B-43F7-A66A-7E8C6D7AD91D"),
    ],
)
def test_there_is_no_link_where_its_name_would_be_unsafe_or_another_machines(unit: str | None) -> None:
    assert link(None, None, unit) is None


def test_a_uuid_put_together_from_parts_is_no_link_name() -> None:
    assert link("9bef0a75", "5a9b", "43f7-a66a-7e8c6d7ad91d") is None


def test_a_snapshot_is_named_by_source_and_time() -> None:
    moment = datetime(2026, 11, 24, 9, 5, 7, tzinfo=BERLIN)
    assert names.new_snapshot_name("etc", moment, "0a1b") == "etc_20261124-090507_0a1b"
    for source, suffix in (("../x", "0a1b"), ("etc", "0A1B"), ("etc", "1"), ("etc", "../x")):
        with pytest.raises((InvalidValue, ValueError)):
            names.new_snapshot_name(source, moment, suffix)


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("etc_20261124-090507_0a1b", datetime(2026, 11, 24, 8, 5, 7, tzinfo=UTC)),
        ("etc_20260724-090507_0a1b", datetime(2026, 7, 24, 7, 5, 7, tzinfo=UTC)),
        ("2015-02-20T03:20:36", datetime(2015, 2, 20, 2, 20, 36, tzinfo=UTC)),
        ("2015-02-20T03:20:36.123456", datetime(2015, 2, 20, 2, 20, 36, 123456, tzinfo=UTC)),
        ("2015-02-20T03:20:36+00:00", datetime(2015, 2, 20, 3, 20, 36, tzinfo=UTC)),
        ("1424402436", datetime.fromtimestamp(1424402436, UTC)),
    ],
)
def test_the_older_forms_of_snapshot_names_are_read_too(name: str, moment: datetime) -> None:
    parsed = names.parse_snapshot_name(name, source="etc", zone=BERLIN)
    assert (parsed.name, parsed.moment, parsed.is_held) == (name, moment, False)
    assert parsed.moment is not None
    assert parsed.moment.utcoffset() is not None


@pytest.mark.parametrize(
    "name",
    [
        *("", "latest", "etc", "etc_20261324-090507_0a1b", "home_20261124-090507_0a1b", "etc_20261124-090507_0A1B"),
        *("etc_20261124-090507", "etc_20261124-090507_0a1b.tmp", "2015-02-30T03:20:36", "20150220", "9" * 12, "x\n"),
        *("etc_00010101-000000_0a1b", "etc_٢0261124-090507_0a1b", "٤٢"),
    ],
)
def test_other_names_have_no_moment(name: str) -> None:
    moment = names.parse_snapshot_name(name, source="etc", zone=BERLIN).moment
    assert moment is None or name == "20150220", "digits alone are Unix seconds"


def test_a_name_with_save_in_it_is_held() -> None:
    for name in ("etc_save", "save-me", "2015-02-20T03:20:36-save", "etc_20261124-090507_0a1b.saved"):
        assert names.parse_snapshot_name(name, source="etc", zone=UTC).is_held


def test_a_source_does_not_hold_all_its_snapshots_by_its_own_name() -> None:
    ours = names.new_snapshot_name("savegames", datetime(2026, 1, 1, tzinfo=UTC), "0a1b")
    assert not names.parse_snapshot_name(ours, source="savegames", zone=UTC).is_held
    assert names.parse_snapshot_name(ours + "-save", source="savegames", zone=UTC).is_held
    assert names.parse_snapshot_name("savegames", source="savegames", zone=UTC).is_held


def test_a_time_that_a_clock_shows_twice_is_the_first() -> None:
    parsed = names.parse_snapshot_name("etc_20261025-023000_0a1b", source="etc", zone=BERLIN)
    assert parsed.moment == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
