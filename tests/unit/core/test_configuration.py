"""Configuration directories: reading, merging, and reporting every fault with its place."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from turku.core.configuration import declaration, loading
from turku.core.configuration import directory as configuration
from turku.core.configuration.declaration import Key, Line, Section
from turku.core.configuration.directory import Fault, MergedFiles
from turku.errors import ConfigurationError


class Folder(Section, frozen=True, kw_only=True):
    """A section of which there are several, each with a name."""

    name: str = ""
    path: Annotated[Path, Key("Where it is.")]
    limit: Annotated[int, Key("Most of it.")] = 0


class Main(Section, frozen=True, kw_only=True):
    """The main section."""

    api_url: Annotated[Line, Key("Where to call.")] = "none"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535), Key("Which port.")] = 22
    limit: Annotated[int, Key("Most of each.")] = 5
    volumes: Annotated[tuple[Folder, ...], Key("Volumes.")] = ()
    mode: Annotated[Literal["auto", "off"], Key("Which mode.")] = "auto"
    home: Annotated[
        Path, Key("Derived.", default_text="`x` there", find_default=lambda values: Path("/") / values["api_url"])
    ]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration as a program declares it."""

    config_dir: Path
    main: Main


class Demanding(Section, frozen=True, kw_only=True):
    """A section with a key that is required."""

    api_url: Annotated[Line, Key("Where to call.", example="https://x/v1")]


class Required(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that cannot be empty."""

    config_dir: Path
    demanding: Demanding


def loaded(files: MergedFiles, faults: list[Fault], kind: Any = Example, config_dir: Path = Path("/etc/x")) -> Any:
    return loading.try_load(kind, files, faults, config_dir=config_dir)


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return directory


def test_later_files_win_key_by_key_in_nested_dictionaries_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        b__json='{"name": "late", "volumes": {"data": {"path": "/srv/b"}, "more": {"path": "/srv/more"}}}',
        a__json='{"name": "early", "port": 1, "volumes": {"data": {"path": "/srv/a", "accept_new": false}}}',
    )
    assert configuration.read_directories([tmp_path]).content == {
        "name": "late",
        "port": 1,
        "volumes": {"data": {"path": "/srv/b", "accept_new": False}, "more": {"path": "/srv/more"}},
    }


def test_a_later_directory_wins_over_an_earlier_one_whatever_its_files_are_called(tmp_path: Path) -> None:
    state = write(tmp_path / "state", z__json='{"name": "generated"}')
    etc = write(tmp_path / "etc", a__json='{"name": "chosen"}')
    assert configuration.read_directories([state, etc]).content == {"name": "chosen"}


def test_lists_are_replaced_not_joined() -> None:
    assert configuration.merge({"filter": ["+ a", "- b"]}, {"filter": ["- c"]}) == {"filter": ["- c"]}


def test_merging_leaves_what_was_merged_as_it_was() -> None:
    lower = {"volumes": {"data": {"path": "/srv"}}}
    configuration.merge(lower, {"volumes": {"data": {"path": "/other"}}})
    assert lower == {"volumes": {"data": {"path": "/srv"}}}


def test_yaml_and_json_are_read_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, a__json='{"port": 1}', b__yaml="port: 2\nname: web\n", c__yml="name: web-2\n")
    assert configuration.read_directories([tmp_path]).content == {"port": 2, "name": "web-2"}


def test_other_files_and_hidden_ones_are_left_alone_and_named(tmp_path: Path) -> None:
    write(tmp_path, a__json="{}", notes__txt="no JSON", b__json__bak="no JSON")
    (tmp_path / ".hidden.json").write_text("{")
    for name in (".gitkeep", ".a.json.turku-tmp-0123456789ab", ".a.json.swp"):
        (tmp_path / name).write_text("{")
    tree = configuration.read_directories([tmp_path])
    assert (tree.content, tree.faults) == ({}, [])
    assert tree.ignored == [
        f"{tmp_path}/.hidden.json: is not read: its name begins with a dot",
        f"{tmp_path}/b.json.bak: is not read: its name does not end with one of .json, .yaml, .yml",
        f"{tmp_path}/notes.txt: is not read: its name does not end with one of .json, .yaml, .yml",
    ]


def faults(directory: Path) -> list[str]:
    return [str(fault) for fault in configuration.read_directories([directory]).faults]


def test_a_key_that_is_there_twice_is_a_fault_with_file_and_line(tmp_path: Path) -> None:
    text = '{\n  "etc": {"path": "/etc", "exclude": [{"a": 1, "a": 2}]},\n  "home": {"path": "/a",\n  "path": "/b"},\n  "etc": {}\n}'
    write(tmp_path, a__json=text)
    assert faults(tmp_path) == [
        f"{tmp_path}/a.json, line 4: home.path: is there twice; the first one is in line 3",
        f"{tmp_path}/a.json, line 5: etc: is there twice; the first one is in line 2",
    ]


def test_a_key_that_is_there_twice_on_one_line_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, a__json='{"a": "x", "b": {"c\\u0061": 1, "ca": 2}}')
    assert faults(tmp_path) == [f"{tmp_path}/a.json, line 1: b.ca: is there twice; the first one is in line 1"]


def test_a_key_that_is_there_twice_in_yaml_is_a_fault(tmp_path: Path) -> None:
    text = "etc: &etc\n  path: /etc\nhome:\n  <<: *etc\n  path: /home\n  path: /other\netc:\n  path: /x\n"
    write(tmp_path, a__yaml=text)
    assert faults(tmp_path) == [
        f"{tmp_path}/a.yaml, line 6: home.path: is there twice; the first one is in line 5",
        f"{tmp_path}/a.yaml, line 7: etc: is there twice; the first one is in line 1",
        f"{tmp_path}/a.yaml, line 8: etc.path: is there twice; the first one is in line 2",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0100", "0100 is read as 64, as a leading zero makes it octal; put it in quotes"),
        ("-010", "-010 is read as -8, as a leading zero makes it octal; put it in quotes"),
        ("22:30", "22:30 is read as 1350, as a colon makes it a number of base 60; put it in quotes"),
    ],
)
def test_a_yaml_number_that_is_another_one_than_it_looks_is_a_fault(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, a__yaml=f"etc:\n  path: /etc\n  bwlimit: {text}\n  list: [1, {text}]\n")
    assert faults(tmp_path) == [
        f"{tmp_path}/a.yaml, line 3: etc.bwlimit: {message}",
        f"{tmp_path}/a.yaml, line 4: etc.list: {message}",
    ]


@pytest.mark.parametrize(
    "text", ["100", "0", "00", "007", "0x10", "1_000", "'0100'", '"22:30"', "0900", "1.5", "2026-01-02"]
)
def test_a_yaml_number_that_is_what_it_looks_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path, a__yaml=f"etc:\n  bwlimit: {text}\n")
    assert faults(tmp_path) == []


def test_keys_keep_the_line_of_the_file_that_they_are_from(tmp_path: Path) -> None:
    write(tmp_path, a__json='{\n"etc": {},\n"home": {}}', b__yaml="# later\n\n\netc:\n  path: /etc\n")
    tree = configuration.read_directories([tmp_path])
    assert tree.place_with_line("etc") == f"{tmp_path}/b.yaml, line 4: etc"
    assert tree.place_with_line("home") == f"{tmp_path}/a.json, line 3: home"


@pytest.mark.parametrize("text", ["a: \x01", "a: 2026-13-45", "{a: 1", "[1\n", "--- 1\n--- 2\n", "? [a]\n: 1"])
def test_yaml_that_cannot_be_read_is_a_fault(tmp_path: Path, text: str) -> None:
    write(tmp_path, a__yaml=text)
    (fault,) = faults(tmp_path)
    assert "a.yaml: " in fault


def test_files_that_say_nothing_and_missing_directories_hold_nothing(tmp_path: Path) -> None:
    write(tmp_path, a__json="{}", c__yaml="# nothing yet\n")
    assert configuration.read_directories([tmp_path, tmp_path / "missing"]) == MergedFiles()


@pytest.mark.parametrize("text", ["", "\n", " \n\t"])
@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml"])
def test_an_empty_file_is_a_fault_that_names_it(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    [fault] = configuration.read_directories([tmp_path]).faults
    assert fault.place == str(tmp_path / name)
    assert fault.message.startswith("is empty")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "malformed JSON: "),
        ("a.json", "[1]", "must hold a dictionary with text keys at its top"),
        ("a.json", "[" * 100_000, "malformed JSON: "),
        ("a.yaml", "a: [", "malformed YAML: "),
        ("a.yaml", "1: one", "must hold a dictionary with text keys at its top"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "malformed YAML: "),
    ],
)
def test_a_malformed_file_is_a_fault_that_names_it(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    (fault,) = configuration.read_directories([tmp_path]).faults
    assert str(fault).startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in str(fault)


def test_text_that_is_not_utf_8_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"comment": "caf\xe9"}')
    (fault,) = configuration.read_directories([tmp_path]).faults
    assert fault.message == "is not UTF-8 text (byte 16)"


def test_a_huge_file_is_a_fault_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * (configuration.FILE_LIMIT_BYTES + 1))
    (fault,) = configuration.read_directories([tmp_path]).faults
    assert "larger than" in fault.message


def test_fitting_values_are_taken_and_every_misfit_is_reported_with_its_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__json='{"api_url": 5, "volumes": {"data": {"path": 1}, "more": 2}}',
        b__json='{"port": 70000, "x": 1}',
    )
    tree = configuration.read_directories([tmp_path])
    faults: list[Fault] = []
    assert loaded(tree, faults).main == Main(home=Path("/none"))
    assert [fault.place for fault in faults] == [
        f"{tmp_path}/a.json: api_url",
        f"{tmp_path}/b.json: port",
        f"{tmp_path}/a.json: volumes.data.path",
        f"{tmp_path}/a.json: volumes.more",
    ]


def test_named_sections_have_their_names_and_what_they_leave_out_is_as_around_them() -> None:
    content = {"limit": 7, "volumes": {"data": {"path": "/srv"}, "more": {"path": "/more", "limit": 9}}}
    faults: list[Fault] = []
    main = loaded(MergedFiles(content=content), faults).main
    assert faults == []
    assert main.volumes == (
        Folder(name="data", path=Path("/srv"), limit=7),
        Folder(name="more", path=Path("/more"), limit=9),
    )


def test_a_default_is_found_from_the_keys_before() -> None:
    assert loaded(MergedFiles(content={"api_url": "y", "home": None}), []).main.home == Path("/y")
    assert loaded(MergedFiles(content={"home": "/given"}), []).main.home == Path("/given")


def test_values_are_replaced_in_their_sections() -> None:
    changed = declaration.with_values(loaded(MergedFiles(), []), port=23, config_dir=Path("/y"))
    assert (changed.main.port, changed.main.mode, changed.config_dir) == (23, "auto", Path("/y"))


@pytest.mark.parametrize("path", ["relative", "", "/a\nb", "/" + "x" * 5000])
def test_a_path_is_absolute_and_one_line(path: str) -> None:
    faults: list[Fault] = []
    loaded(MergedFiles(content={"home": path}), faults)
    assert [fault.place for fault in faults] == ["home"]


def test_a_number_in_quotes_is_no_number(tmp_path: Path) -> None:
    write(tmp_path, a__json='{"port": "22"}')
    faults: list[Fault] = []
    loaded(configuration.read_directories([tmp_path]), faults)
    assert len(faults) == 1


def test_an_unknown_key_is_a_warning_with_the_nearest_known_one(tmp_path: Path) -> None:
    write(tmp_path, a__json='{"api_ulr": "https://x", "zebra": 1, "port": 1, "volumes": {"d": {"pat": 1}}}')
    tree = configuration.read_directories([tmp_path])
    assert loading.unknown_key_warnings(Example, tree) == [
        f"{tmp_path}/a.json: api_ulr: unknown key, ignored; did you mean 'api_url'?",
        f"{tmp_path}/a.json: zebra: unknown key, ignored",
        f"{tmp_path}/a.json: volumes.d.pat: unknown key, ignored; did you mean 'path'?",
    ]


def test_the_place_of_a_nested_key_is_the_file_of_its_top(tmp_path: Path) -> None:
    write(tmp_path, a__json='{"volumes": {}}')
    tree = configuration.read_directories([tmp_path])
    assert tree.place("volumes.data.path") == f"{tmp_path}/a.json: volumes.data.path"
    assert tree.place("volumes[0]") == f"{tmp_path}/a.json: volumes[0]"
    assert tree.place("api_url") == "api_url"


def test_all_faults_are_refused_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration.refuse([Fault("a.json: port", "is wrong"), Fault("b.json", "is empty")], program="turku-agent")
    assert caught.value.message.splitlines() == [
        "the configuration of turku-agent has 2 faults:",
        "  a.json: port: is wrong",
        "  b.json: is empty",
    ]


def test_no_fault_is_no_error() -> None:
    configuration.refuse([], program="turku-agent")


def test_a_required_key_is_missed_by_its_name_and_directory(tmp_path: Path) -> None:
    faults: list[Fault] = []
    assert loaded(MergedFiles(), faults, Required, tmp_path / "none") is None
    write(tmp_path / "config.d")
    assert loaded(MergedFiles(), faults, Required, tmp_path) is None
    assert [str(fault) for fault in faults] == [
        f"{tmp_path}/none/config.d (there is no such directory): api_url: is required, for example https://x/v1",
        f"{tmp_path}/config.d: api_url: is required, for example https://x/v1",
    ]


def test_a_required_key_is_not_missed_where_a_file_could_not_be_read(tmp_path: Path) -> None:
    tree = configuration.read_directories([write(tmp_path / "config.d", a__json="{")])
    faults = list(tree.faults)
    loaded(tree, faults, Required, tmp_path)
    assert len(faults) == 1


def test_a_word_that_is_none_of_some_is_refused_with_the_valid_ones() -> None:
    faults: list[Fault] = []
    loaded(MergedFiles(content={"mode": "on"}), faults)
    assert faults[0].message.endswith("; one of auto, off")
