"""Programs that stand in front of rsync and ssh, note each call, and then let the real one run.

``Recorder(directory)`` writes them. ``ssh_command``, ``rsyncd_command`` (both for the agent's configuration) and
``rsync_command`` (for the storage's) are argument lists. Each start leaves one JSON file, read back by ``calls``.
"""

import json
import sys
from pathlib import Path
from typing import Any

_SCRIPT = """\
import json, os, pathlib, re, shutil, subprocess, sys, threading

directory, kind, program, *argv = sys.argv[1:]
note = {"argv": argv, "environment": dict(os.environ), "files": {}}

def keep(path):
    try:
        note["files"][path] = {"text": pathlib.Path(path).read_text(), "mode": os.stat(path).st_mode & 0o7777}
    except OSError:
        pass

def write():
    path = pathlib.Path(directory, f"{kind}-{os.getpid()}.json")
    path.with_suffix(".new").write_text(json.dumps(note))
    path.with_suffix(".new").rename(path)

if kind == "rsyncd":
    for argument in argv:
        if argument.startswith("--config="):
            keep(argument.partition("=")[2])
    if "--config" in argv:
        keep(argv[argv.index("--config") + 1])
    for kept in list(note["files"].values()):
        for path in re.findall(r"secrets file *= *(.+)", kept["text"]):
            keep(path.strip())
    write()
    os.execvp(program, [program, *argv])
elif kind == "rsync":
    planned = pathlib.Path(directory, "exit-code")
    code = subprocess.run([program, *argv], close_fds=False).returncode
    if planned.exists() and "--version" not in argv and "-V" not in argv:
        code = int(planned.read_text())
    note["exit_code"] = code
    write()
    sys.exit(code)
else:
    for argument in argv:
        if "KnownHostsFile=" in argument:
            keep(argument.partition("=")[2].strip('"'))
    note["stdin"] = ""
    note["stdin_ended"] = False
    child = subprocess.Popen([program, *argv], stdin=subprocess.PIPE)

    def pump():
        while chunk := os.read(0, 65536):
            note["stdin"] += chunk.decode()
            try:
                child.stdin.write(chunk)
                child.stdin.flush()
            except OSError:
                return
        note["stdin_ended"] = True
        child.stdin.close()

    threading.Thread(target=pump, daemon=True).start()
    note["exit_code"] = child.wait()
    write()
    os._exit(note["exit_code"])
"""


class Recorder:
    """The directory with the notes of one machine or storage."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "recorder.py").write_text(_SCRIPT)

    def _command(self, kind: str, program: str) -> list[str]:
        return [sys.executable, "-I", str(self.directory / "recorder.py"), str(self.directory), kind, program]

    @property
    def ssh_command(self) -> list[str]:
        return self._command("ssh", "ssh")

    @property
    def rsyncd_command(self) -> list[str]:
        return self._command("rsyncd", "rsync")

    @property
    def rsync_command(self) -> list[str]:
        return self._command("rsync", "rsync")

    def calls(self, kind: str) -> list[dict[str, Any]]:
        """Return the notes of each start of that kind, in their order, without those that ask the machine's programs for versions."""
        paths = sorted(self.directory.glob(f"{kind}-*.json"), key=lambda path: path.stat().st_mtime_ns)
        notes = [json.loads(path.read_text()) for path in paths]
        return [note for note in notes if kind == "rsync" or note["argv"] not in (["-V"], ["--version"])]

    def forget(self) -> None:
        """Remove all notes."""
        for path in self.directory.glob("*-*.json"):
            path.unlink()

    def end_rsync_with(self, exit_code: int | None) -> None:
        """From now on the storage's rsync does its work and then says that it ended so (None: as it did)."""
        plan = self.directory / "exit-code"
        if exit_code is None:
            plan.unlink(missing_ok=True)
        else:
            plan.write_text(str(exit_code))
