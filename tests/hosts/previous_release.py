"""The packages of the last release, which ``packaging/previous-packages.sh`` builds."""

from pathlib import Path
from typing import Final

import pytest
from tests.support.markdown import REPOSITORY

COMMIT: Final = "e2c41d7c76632a96906df9866a40167ecdfb67bb"
"""The last release. Until there is one, the first commit whose packages set hosts up by one command."""
_DIRECTORY: Final = REPOSITORY / ".cache" / "previous"


def packages(*names: str) -> list[Path]:
    """Return the files of these packages, and of what they share, for Debian 12. Without history, the test is skipped."""
    if not (_DIRECTORY / ".built").exists():
        pytest.skip("the packages of the last release are not built: is this a shallow clone?")
    return [next((_DIRECTORY / "dist" / "debian12").glob(f"{name}_*.deb")) for name in ("turku-common", *names)]
