"""An archive of this project's packages on a host, as an operator's own repository is one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.hosts.host import Host, run

_DIRECTORY: Final = "/srv/packages"


def add(host: Host, packages: Sequence[Path]) -> None:
    """Have apt on the host know the packages of an archive of its own."""
    host.copy_in(*packages, to=_DIRECTORY)
    index = "\n".join(_entry(package) for package in packages)
    (host.root / _DIRECTORY.lstrip("/") / "Packages").write_text(index)
    (host.root / "etc/apt/sources.list.d/turku.list").write_text(f"deb [trusted=yes] file:{_DIRECTORY} ./\n")
    # Those of Debian stay as the root has them, because a host reaches no network.
    host.run("apt-get update -o Dir::Etc::sourcelist=sources.list.d/turku.list -o APT::Get::List-Cleanup=0")


def _entry(package: Path) -> str:
    content = package.read_bytes()
    fields = run("dpkg-deb", "--field", package).strip()
    digest = hashlib.sha256(content).hexdigest()
    return f"{fields}\nFilename: ./{package.name}\nSize: {len(content)}\nSHA256: {digest}\n"
