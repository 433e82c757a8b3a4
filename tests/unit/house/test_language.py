"""The language of the house: docstrings, names, folders and pages follow the rules that CONTRIBUTING.md gives."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support import markdown
from tests.support.markdown import REPOSITORY

SOURCE = REPOSITORY / "src" / "turku"
ROOTS = ("src", "bench", "tests", "docs")
SEMICOLONS_PER_THOUSAND_WORDS = 1.0
GLOSSARY_TERMS = 60
ENTRIES_PER_FOLDER = 16
_QUESTION = re.compile(r"(What|Whether|How|Who|Whom|Whose|Which|When|Where|Why)\b")
_CODE = re.compile(r"```.*?```|``.*?``|`[^`]*`", re.DOTALL)
# Names that Django or msgspec ask for.
_REPEATED_CLASSES = {"Meta", "Command", "Migration", "Config"}


class Text(NamedTuple):
    place: str
    words: str

    @property
    def semicolons(self) -> int:
        return _CODE.sub("x", self.words).count(";")

    @property
    def length(self) -> int:
        return len(_CODE.sub("x", self.words).split())


def folders() -> list[Path]:
    below = [path for path in SOURCE.rglob("*") if path.is_dir() and path.name not in ("__pycache__", "migrations")]
    return sorted([SOURCE, *below])


def folder_name(folder: Path) -> str:
    return str(folder.relative_to(SOURCE))


FOLDERS = [folder for folder in folders() if any(folder.glob("*.py"))]


def code(root: str) -> list[Path]:
    return sorted((REPOSITORY / root).rglob("*.py"))


def docstrings(file: Path) -> Iterator[Text]:
    """Yield the docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for statement in node.body:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                continue
            if isinstance(statement.value.value, str):
                yield Text(f"{file.relative_to(REPOSITORY)}:{statement.lineno}", statement.value.value.strip())


def comments(file: Path) -> Iterator[Text]:
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield Text(f"{file.relative_to(REPOSITORY)}:{token.start[0]}", token.string)


def too_many_semicolons(texts: list[Text]) -> list[str]:
    """Return the places of the semicolons if there are more than the rule allows."""
    count = sum(text.semicolons for text in texts)
    allowed = SEMICOLONS_PER_THOUSAND_WORDS * sum(text.length for text in texts) / 1000
    return [text.place for text in texts if text.semicolons] if count > allowed else []


@pytest.mark.parametrize("root", ROOTS)
def test_no_docstring_begins_with_a_question_word(root: str) -> None:
    found = [text.place for file in code(root) for text in docstrings(file) if _QUESTION.match(text.words)]
    assert found == []


@pytest.mark.parametrize("root", ROOTS)
def test_docstrings_and_comments_are_sentences_rather_than_chains_of_semicolons(root: str) -> None:
    texts = [text for file in code(root) for text in (*docstrings(file), *comments(file))]
    assert too_many_semicolons(texts) == []


def test_pages_are_sentences_rather_than_chains_of_semicolons() -> None:
    texts = [
        Text(f"{page.relative_to(REPOSITORY)}:{number}", line)
        for page in markdown.pages()
        for number, line in enumerate(prose(page.read_text()).splitlines(), 1)
    ]
    assert too_many_semicolons(texts) == []


def prose(text: str) -> str:
    """Return the text of a page with the content of its code blocks blanked, so that line numbers stay."""
    return re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def test_no_class_name_means_two_things() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for file in (file for folder in FOLDERS for file in folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in _REPEATED_CLASSES:
                places[node.name].append(f"{file.relative_to(REPOSITORY)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=folder_name)
def test_a_package_says_in_one_sentence_what_it_is_responsible_for(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert docstring
    assert docstring.endswith(".")
    assert not re.search(r"[.!?]\s+[A-Z]", docstring)


@pytest.mark.parametrize("folder", FOLDERS, ids=folder_name)
def test_a_folder_is_small_enough_to_be_read_as_a_list(folder: Path) -> None:
    entries = {entry.name for entry in folder.iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    # A folder of commands has a file for each subcommand, whatever their number.
    assert len(entries) <= (ENTRIES_PER_FOLDER if folder.name != "commands" else ENTRIES_PER_FOLDER + 5)


def test_the_glossary_is_short_enough_to_be_learned() -> None:
    page = (REPOSITORY / "docs/reference/glossary.md").read_text()
    terms = re.findall(r"^\| (?!term |-)(.*?) \|", page, re.MULTILINE)
    assert len(terms) == len(set(terms))
    assert 0 < len(terms) <= GLOSSARY_TERMS
