"""The releases of Debian on which hosts run, with their roots and packages."""

from enum import Enum
from pathlib import Path

from tests.support.markdown import REPOSITORY


class Release(Enum):
    """A release of Debian."""

    DEBIAN12 = "debian12"
    DEBIAN13 = "debian13"

    @property
    def root(self) -> Path:
        """The clean root, made by ``packaging/host-roots.sh``."""
        root = REPOSITORY / ".cache" / "hosts" / self.value
        assert (root / ".fetched").exists(), f"{root} is missing: run `make test-hosts`"
        return root

    def packages(self, *names: str) -> list[Path]:
        """Return the files of the packages with these names, and of what they share."""
        return [self._package(name) for name in ("turku-common", *names)]

    def _package(self, name: str) -> Path:
        found = sorted((REPOSITORY / "dist" / self.value).glob(f"{name}_*.deb"))
        assert len(found) == 1, f"{name} in dist/{self.value}: {found}; run `make packages`"
        return found[0]
