"""Write the parts of the reference and of the examples that follow from declarations: ``make reference``.

The tables between the markers of configuration.md and the commented examples come from the declarations of keys
(src/turku/agent/config/model.py, src/turku/storage/config/model.py) and from the table of source options
(src/turku/policy/source_options.py). A test compares them.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from turku.agent.config.model import AgentConfig
from turku.core.configuration import declaration
from turku.core.configuration.declaration import DeclaredKey, Section
from turku.policy import source_options
from turku.storage.config.model import AnomalyConfig, StorageConfig, Volume

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/reference/configuration.md"
EXAMPLES = REPOSITORY / "examples"
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
_POINTER = re.compile(r" See (?:below|\[[^]]*\]\([^)]*\))\.")
"""A pointer to another part of the page, which the examples do not have."""
_WIDTH = 100
_ALL_IS_EXPLAINED = "docs/reference/configuration.md explains each one. Written by `make reference`."
_CONTRACT_KEYS = (
    "api_url api_auth api_auth_name api_auth_secret machine_uuid machine_secret environment_name service_name "
    "unit_name published var_dir lock_dir rsyncd_command rsyncd_local_address rsyncd_user rsyncd_group ssh_command "
    "ssh_key_type gonogo_program restore_path restore_module log_file timezone name secret ssh_ping_host "
    "ssh_ping_port ssh_ping_user ssh_ping_host_keys ssh_ping_host_keys_glob authorized_keys_user "
    "authorized_keys_file authorized_keys_command accept_new_high_water_pct volumes snapshot_mode "
    "preserve_hard_links path accept_new"
)
"""The keys of the existing system, whose names and meanings stay. No other ones will ever be added."""


def page(text: str) -> str:
    """Return the text of the reference page with its generated parts up to date."""
    parts = {
        "agent": _sections(AgentConfig),
        "sources": _table(("option", "type", "default", "since", "meaning"), _option_rows()),
        "storage": _sections(StorageConfig),
        "volumes": _keys(declaration.keys(Volume)),
        "anomaly": _keys(declaration.keys(AnomalyConfig)),
    }
    for name, content in parts.items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE}: has no line {begin}")
        text = f"{before}{begin}\n\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def commented(configuration: type[msgspec.Struct]) -> str:
    """Return an example that has every key with its help and default, all but required ones commented out."""
    lines = [f"# Every key with its default. {_ALL_IS_EXPLAINED}", ""]
    for title, keys in _groups(configuration):
        lines += [f"# --- {title}", ""]
        for key in keys:
            lines += [f"# {line}" for line in _wrapped(key.key.help)]
            if key.key.example:
                lines += [_yaml(key.name, key.key.example), ""]
            else:
                default = _plain_default(key)
                lines += [f"# {_yaml(key.name, default)}" if default else f"# {key.name}: ({_words(key)})", ""]
    return "\n".join(lines[:-1]) + "\n"


def commented_sources() -> str:
    """Return an example of a source that has every option with its help and default."""
    lines = [f"# Every option of a source with its default. {_ALL_IS_EXPLAINED}", "etc:"]
    for name, option in source_options.OPTIONS.items():
        lines += [f"  # {line}" for line in _wrapped(option.help)]
        if option.is_required:
            lines += [f"  {name}: /etc", ""]
        else:
            lines += [
                f"  # {name}: {f'({option.default_text})' if option.default_text else json.dumps(option.default)}",
                "",
            ]
    return "\n".join(lines[:-1]) + "\n"


def _wrapped(help_text: str) -> list[str]:
    """Return the lines of a help text in an example, where links lead nowhere."""
    return textwrap.wrap(_LINK.sub(r"\1", _POINTER.sub("", help_text)), _WIDTH)


def generated() -> dict[Path, str]:
    """Return the content of every file that is generated, or has generated parts."""
    return {
        PAGE: page(PAGE.read_text()),
        EXAMPLES / "agent/commented/config.d/config.yaml": commented(AgentConfig),
        EXAMPLES / "agent/commented/sources.d/etc.yaml": commented_sources(),
        EXAMPLES / "storage/commented/config.d/config.yaml": commented(StorageConfig),
    }


def _groups(configuration: type[msgspec.Struct]) -> Iterator[tuple[str, list[DeclaredKey]]]:
    for section in declaration.sections(configuration).values():
        yield _title(section), declaration.keys(section)
    if own := declaration.keys(configuration):
        yield "Anomaly", own


def _title(section: type[Section]) -> str:
    return (section.__doc__ or "").partition("\n")[0].removesuffix(".")


def _sections(configuration: type[msgspec.Struct]) -> str:
    return "\n".join(f"**{title}**\n\n{_keys(keys)}" for title, keys in _groups(configuration))


def _keys(keys: Iterable[DeclaredKey]) -> str:
    return _table(
        ("key", "default", "since", "meaning"),
        (
            (
                f"`{key.name}`",
                _default(key),
                "v1" if key.name in _CONTRACT_KEYS.split() else key.key.since,
                key.key.help,
            )
            for key in keys
        ),
    )


def _option_rows() -> Iterator[tuple[str, ...]]:
    for name, option in source_options.OPTIONS.items():
        default = option.default_text or f"`{json.dumps(option.default)}`"
        yield f"`{name}`", option.type, default, "v1" if option.has_column else option.since, option.help


def _default(key: DeclaredKey) -> str:
    plain = _plain_default(key)
    return f"`{plain}`" if plain else _words(key)


def _words(key: DeclaredKey) -> str:
    """Return the default in words, where it is not a value."""
    return "required" if key.is_required else key.key.default_text or "none"


def _plain_default(key: DeclaredKey) -> str:
    """Return the default as JSON, or nothing where it is required, absent or found at run time."""
    if key.is_required or key.key.default_text or key.static_default is None:
        return ""
    return json.dumps(msgspec.to_builtins(key.static_default, enc_hook=str))


def _yaml(name: str, value: Any) -> str:
    # JSON is YAML as well. Plain text needs no quotes here.
    return f"{name}: {value}"


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [" | ".join(headings), "|".join("---" for _ in headings)]
    lines = [f"| {lines[0]} |", f"|{lines[1]}|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page and the examples."""
    for path, content in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
