"""Check of the login shell of the machines' user.

sshd lets the shell run the forced command, and the shell may print something first. It reads ``~/.bashrc``,
``~/.zshenv`` or ``~/.cshrc`` without a terminal too. What they print reaches the machine before the storage's own
answers.
"""

import os
import pwd
import secrets

from turku.core import command
from turku.core.log import one_line
from turku.errors import CommandFailed

_TIMEOUT_SECONDS = 10.0
_LIMIT_BYTES = 64 * 1024
_SHOWN = 3


def check(user: str) -> str:
    """Return the fault of the user's shell, or an empty text if it only runs the command.

    The shell is run as sshd runs it, as that user. Raises CommandFailed if this process cannot do that.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CommandFailed(f"there is no user {user} on this host") from None
    # sshd uses this shell for an empty field.
    shell = account.pw_shell or "/bin/sh"
    mark = f"turku-{secrets.token_hex(8)}"
    argv = [shell, "-c", f"echo {mark}"]
    if account.pw_uid != os.geteuid():
        if os.geteuid() != 0:
            raise CommandFailed(f"only root can run the shell of {user}")
        argv = ["runuser", "-u", user, "--", *argv]
    session = {
        "HOME": account.pw_dir,
        "USER": user,
        "LOGNAME": user,
        "SHELL": shell,
        # A shell recognises by these variables that sshd started it.
        "SSH_CLIENT": "127.0.0.1 50000 22",
        "SSH_CONNECTION": "127.0.0.1 50000 127.0.0.1 22",
        "SSH_ORIGINAL_COMMAND": "turku-ping-remote",
    }
    ended = command.run(
        argv, timeout_seconds=_TIMEOUT_SECONDS, capture_limit_bytes=_LIMIT_BYTES, extra_environment=session, check=False
    )
    return _problem(shell, ended, mark.encode())


def _problem(shell: str, ended: command.CompletedProgram, mark: bytes) -> str:
    before, found, after = ended.stdout.partition(mark)
    lines = [one_line(line) for line in (before + after).splitlines() if line.strip()]
    shown = "; ".join(repr(line[:200]) for line in lines[:_SHOWN])
    if not found:
        said = shown or "; ".join(repr(line) for line in ended.last_lines[-_SHOWN:]) or "nothing"
        return f"{shell} does not run what it is told to (exit code {ended.exit_code}; it prints {said})"
    if lines:
        return f"{shell} prints {shown} before it runs the forced command"
    return ""
