"""Configuration directories of an agent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration (keys, sources=...) and returns its directory."""

    def write(*, sources: dict[str, Any] | None = None, **keys: Any) -> Path:
        directory = tmp_path / "etc"
        for name in ("config.d", "sources.d"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        content = {"api_url": "https://turku.example.com/v1", "var_dir": str(tmp_path / "var"), **keys}
        (directory / "config.d/config.json").write_text(json.dumps(content))
        (directory / "sources.d/sources.json").write_text(json.dumps(sources or {}))
        return directory

    return write
