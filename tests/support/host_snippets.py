"""The snippets for sshd and sudo, as ``turku-storage setup`` installs them."""

from pathlib import Path

from turku.storage.setup import snippets


def sshd(program_directory: Path = Path("/usr/local/bin")) -> str:
    return snippets.SSHD.content(program_directory).decode()


def sudoers(program_directory: Path = Path("/usr/local/bin")) -> str:
    return snippets.SUDOERS.content(program_directory).decode()
