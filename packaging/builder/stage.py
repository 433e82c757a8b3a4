"""Fill the directories from which the Debian packages are made.

Usage: stage.py WHEELS COMPILED DEBIAN, then stage.py --described DESCRIBED DEBIAN. WHEELS has a directory of wheels for
each of turku-common and turku-api. COMPILED has modules that were compiled for turku-api. DESCRIBED is what describe.py
wrote. DEBIAN is the directory that has one directory for each package.
"""

import fnmatch
import platform
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "src" / "turku"
ROLES = ("agent", "storage", "api")
LEFT_OUT = ("demo",)
LIBRARY = "usr/lib/turku"
_UNUSED = (
    *("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.po", "*/RECORD", "*/WHEEL", "*/top_level.txt", "*/entry_points.txt"),
    "yaml/_yaml*.so",  # a copy of libyaml, which nothing here uses
)
_LAUNCHER = """\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/{library}")
from {module} import {function}

{function}()
"""
_HOST_FILES = {
    "systemd": "usr/lib/systemd/system",
    "sysusers.d": "usr/lib/sysusers.d",
    "tmpfiles.d": "usr/lib/tmpfiles.d",
}
_ALIASES = {"bookworm": {"usr/lib/systemd/system": "lib/systemd/system"}}
"""Places whose files debhelper of a release knows under another name only. On the host, /lib is /usr/lib."""


def programs_of(role: str) -> dict[str, str]:
    """Return the programs of a role, with the function that each starts, as ``module:function``."""
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    return {name: target for name, target in scripts.items() if target.startswith(f"turku.{role}.")}


def launcher(target: str) -> str:
    """Return a program that starts a function. Nothing in the user's environment or directory changes what it imports.

    It does not read the system's Python packages either: all that it imports is in its own directory.
    """
    module, _, function = target.partition(":")
    return _LAUNCHER.format(library=LIBRARY, module=module, function=function)


def unpack(wheel: Path, library: Path) -> None:
    """Unpack the modules and licences of a wheel, without what only builds or type checkers read."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            is_unused = any(fnmatch.fnmatch(name, pattern) for pattern in _UNUSED)
            is_elsewhere = PurePosixPath(name).parts[0].endswith(".data")
            if not name.endswith("/") and not is_unused and not is_elsewhere:
                path = library / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))


def copy_modules(source: Path, target: Path, *ignored: str) -> None:
    """Copy a package of turku with its data."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", *ignored))


def stage_common(package: Path) -> None:
    """Fill turku-common: what the programs share, and the documentation."""
    copy_modules(SOURCES, package / LIBRARY / "turku", "py.typed", *ROLES, *LEFT_OUT)
    documentation = package / "usr/share/doc/turku-common"
    copy_modules(REPOSITORY / "docs", documentation / "docs", "*.py")
    copy_modules(REPOSITORY / "examples", documentation / "examples")


def stage_role(role: str, package: Path) -> None:
    """Fill the package of a role: its modules, programs, units, users and directories."""
    copy_modules(SOURCES / role, package / LIBRARY / "turku" / role)
    programs = package / "usr/bin"
    programs.mkdir(parents=True)
    for name, target in programs_of(role).items():
        (programs / name).write_text(launcher(target))
        (programs / name).chmod(0o755)
    aliases = _ALIASES.get(platform.freedesktop_os_release().get("VERSION_CODENAME", ""), {})
    for kind, place in _HOST_FILES.items():
        copy_modules(SOURCES / role / "host_files" / kind, package / aliases.get(place, place))


def stage(wheels: Path, compiled: Path, debian: Path) -> None:
    """Fill all packages, except for what describe.py writes."""
    stage_common(debian / "turku-common")
    for role in ROLES:
        stage_role(role, debian / f"turku-{role}")
    for part in ("common", "api"):
        for wheel in sorted((wheels / part).iterdir()):
            unpack(wheel, debian / f"turku-{part}" / LIBRARY)
    copy_modules(compiled, debian / "turku-api" / LIBRARY, *_UNUSED, "py.typed")


def stage_described(described: Path, debian: Path) -> None:
    """Put manual pages and completions into the packages of their programs."""
    for role in ROLES:
        for name in programs_of(role):
            copy_modules(described / name, debian / f"turku-{role}")


if __name__ == "__main__":
    if sys.argv[1] == "--described":
        stage_described(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        stage(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
