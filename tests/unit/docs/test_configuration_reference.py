"""The configuration reference has every key that the programs know, with its default, and no other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from docs.reference import generate
from tests.support import markdown
from tests.support.markdown import REPOSITORY

from turku.agent.config.model import AgentConfig
from turku.api.configuration import environment
from turku.core.configuration import declaration
from turku.policy import source_options
from turku.storage.config.model import AnomalyConfig, StorageConfig, Volume

PAGE = "docs/reference/configuration.md"


@pytest.mark.parametrize("path", generate.generated(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    assert path.read_text() == generate.generated()[path], "run `make reference`"


@pytest.mark.parametrize("kind", [AgentConfig, StorageConfig])
def test_every_key_has_help_in_full_sentences_and_a_name_of_its_own(kind: type[Any]) -> None:
    keys = declaration.all_keys(kind)
    assert len({key.name for key in keys}) == len(keys)
    for key in (*keys, *declaration.keys(Volume), *declaration.keys(AnomalyConfig)):
        assert key.key.help.endswith("."), key.name
        assert key.key.help[0] == "`" or key.key.help[0] == "[" or key.key.help[0].isupper(), key.name


@pytest.mark.parametrize(("heading", "names"), [("Sources", set(source_options.OPTIONS)), ("Volumes", {"path"})])
def test_the_tables_are_below_their_headings(heading: str, names: set[str]) -> None:
    assert names <= {row.key for row in markdown.table(markdown.section(PAGE, heading))}


def test_every_variable_of_the_coordinator_is_described() -> None:
    described = {row.key for row in markdown.table(markdown.section(PAGE, "The coordinator"))}
    asked: set[str] = set()

    class Variables(dict[str, str]):
        """Notes what is looked up."""

        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    environment.read(Variables())
    # read() looks up the _FILE of a secret only where the secret is set.
    environment.read(Variables({"TURKU_SECRET_KEY": "x" * 32, "TURKU_HASH_KEY": "x" * 32}))
    assert described == asked


def test_the_page_has_the_coordinator_s_defaults() -> None:
    rows = {row.key: row.cells[1].strip("`") for row in markdown.table(markdown.section(PAGE, "The coordinator"))}
    assert rows["TURKU_STATE_DIR"] == str(environment.DEFAULT_STATE_DIR)
    assert rows["TURKU_ALLOWED_HOSTS"] == ",".join(environment.DEFAULT_ALLOWED_HOSTS)
    assert rows["TURKU_TIME_ZONE"] == environment.read({}).time_zone


def test_no_program_reads_a_variable_that_the_page_does_not_name() -> None:
    named = set(re.findall(r"TURKU_[A-Z_]*[A-Z]", (REPOSITORY / PAGE).read_text()))
    read = {
        name
        for path in (REPOSITORY / "src").rglob("*.py")
        for name in re.findall(r"environ(?:\.get\(|\[)\"(TURKU_[A-Z_]*[A-Z])\"", path.read_text())
    }
    assert read <= named


@pytest.mark.parametrize("heading", ["Frequency", "Retention"])
def test_the_examples_in_the_tables_are_understood(heading: str) -> None:
    from turku.policy import retention
    from turku.policy.timing import schedule

    for row in markdown.table(markdown.section(PAGE, heading)):
        for text in re.findall(r"`([^`]+)`", row.cells[0]):
            if heading == "Frequency":
                assert schedule.parse(text).text == text
            else:
                retention.parse(text.replace("N", "3"))


def test_every_key_is_in_an_example() -> None:
    seen: dict[str, set[str]] = {"agent": set(), "storage": set()}
    for program, keys in seen.items():
        for path in (REPOSITORY / "examples" / program).rglob("config.d/*.json"):
            keys.update(json.loads(path.read_text()))
    for program, kind in (("agent", AgentConfig), ("storage", StorageConfig)):
        assert seen[program] >= {key.name for key in declaration.all_keys(kind)}


def test_every_source_option_is_in_an_example() -> None:
    options: set[str] = set()
    for path in (REPOSITORY / "examples" / "agent").rglob("sources.d/*.json"):
        for source in json.loads(path.read_text()).values():
            options.update(source)
    assert options == set(source_options.OPTIONS)


def test_every_variable_of_the_coordinator_that_is_no_secret_is_in_an_example() -> None:
    rows = {row.key for row in markdown.table(markdown.section(PAGE, "The coordinator"))}
    text = "".join(path.read_text() for path in Path(REPOSITORY / "examples" / "api").iterdir())
    assert rows - set(re.findall(r"^(TURKU_[A-Z_]+)=", text, re.MULTILINE)) == {"TURKU_SECRET_KEY", "TURKU_HASH_KEY"}
