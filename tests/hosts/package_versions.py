"""The same package under a higher version: what an upgrade installs."""

import re
import shutil
from pathlib import Path

from tests.hosts.host import run


def newer(package: Path, directory: Path) -> Path:
    """Return the package, made again in the directory with a version that comes after its own."""
    tree = directory / package.stem
    shutil.rmtree(tree, ignore_errors=True)
    run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    version = re.findall(r"^Version: (.*)$", text, re.MULTILINE)[0]
    control.write_text(text.replace(version, f"{version}+later"))
    for script in ("postinst", "prerm"):
        path = tree / "DEBIAN" / script
        if path.exists():
            path.write_text(path.read_text().replace(version, f"{version}+later"))
    made = directory / package.name.replace(version, f"{version}+later")
    run("dpkg-deb", "--root-owner-group", "--build", tree, made)
    return made
