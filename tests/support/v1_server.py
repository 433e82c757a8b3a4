"""The server side of an existing fleet, written from the contract alone and sharing no code with Turku.

    with V1Api() as api:
        api.url                                     'http://127.0.0.1:PORT/v1'
        api.registration_secrets                    the values of `auth` that register
        api.storages["primary"] = {...}             the address that machines are given. A new source goes to the first,
        api.placed["etc"] = "primary"               unless it is placed here
        api.calls                                   every (call, message) so far
        api.reports                                 {source: report}, as storages reported
        api.due = {"etc"}                           the sources that are due (default None: all)
        api.machines[uuid]["ssh_public_key"]        the key that the machine sent
        storage_line(api, "primary", volume, uuid)  an authorized_keys line whose forced command is this file

Run as a program it is that forced command: it plays the storage of the existing system.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from turku.errors import TunnelRefused
from turku.storage.session import tunnel_ownership

SOURCE_DEFAULTS: dict[str, Any] = {
    "retention": "last 5 days, earliest of month",
    "bwlimit": None,
    "filter": [],
    "exclude": [],
    "shared_service": False,
    "large_rotating_files": False,
    "large_modifying_files": False,
    "snapshot_mode": None,
    "preserve_hard_links": False,
}


class V1Api:
    """A coordinator for a few machines, as a context manager."""

    def __init__(self) -> None:
        self.registration_secrets: list[Any] = ["REGISTER-MACHINES-HERE"]
        self.storages: dict[str, dict[str, Any]] = {}
        self.placed: dict[str, str] = {}
        self.machines: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self.due: set[str] | None = None
        self.paths: dict[str, str] = {}
        """Paths told instead of those that the machine sent."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                call = self.path.removeprefix("/v1/")
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["Content-Type"] == "application/json"
                api.calls.append((call, message))
                status, answer = api.answer(call, message)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of_call(self, name: str) -> list[Any]:
        """The messages of one call."""
        return [message for call, message in self.calls if call == name]

    def answer(self, call: str, message: Any) -> tuple[int, Any]:
        if call == "update_config":
            return self._update_config(message)
        if call in ("agent_ping_checkin", "agent_ping_restore"):
            machine = self.machines.get(message["machine"]["uuid"])
            if machine is None or machine["secret"] != message["machine"]["secret"]:
                return 403, {"error": "bad auth"}
            if call == "agent_ping_checkin":
                return 200, {"machine": {"scheduled_sources": self._orders(machine, self.due)}}
            return 200, {"machine": {"sources": self._orders(machine, None)}}
        if call == "storage_ping_checkin":
            machine = self.machines[message["machine"]["uuid"]]
            return 200, {"machine": {"uuid": machine["uuid"], "scheduled_sources": self._orders(machine, self.due)}}
        if call == "storage_ping_source_update":
            self.reports.update(message["machine"]["sources"])
            return 200, {}
        return 404, {"error": "no such call"}

    def _update_config(self, message: Any) -> tuple[int, Any]:
        machine = message["machine"]
        known = self.machines.get(machine["uuid"])
        if known is None and message.get("auth") not in self.registration_secrets:
            return 403, {"error": "bad auth"}
        if known is not None and known["secret"] != machine["secret"]:
            return 403, {"error": "bad auth"}
        self.machines[machine["uuid"]] = machine
        return 200, {}

    def _orders(self, machine: dict[str, Any], wanted: set[str] | None) -> dict[str, Any]:
        orders = {}
        for name, options in machine["sources"].items():
            if wanted is None or name in wanted:
                storage = self.placed.get(name) or next(iter(self.storages))
                orders[name] = {
                    **SOURCE_DEFAULTS,
                    **options,
                    "path": self.paths.get(name, options["path"]),
                    "storage": {"name": storage, **self.storages[storage]},
                }
        return orders


def storage_line(api: V1Api, storage: str, volume: Path, machine_uuid: str) -> str:
    """The machine's line in authorized_keys on that storage."""
    command = f"{sys.executable} {Path(__file__).resolve()} {api.url} {storage} {volume} {machine_uuid}"
    options = 'no-agent-forwarding,no-pty,no-X11-forwarding,no-user-rc,permitopen="127.0.0.1:1"'
    return f'command="{command}",{options} {api.machines[machine_uuid]["ssh_public_key"]}\n'


# --- the forced command


def _say(storage: str, level: str, text: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{int(now * 1000) % 1000:03d}"
    print(f"[{stamp} {storage}] {level}: {text}", file=sys.stderr, flush=True)


def _ask(url: str, call: str, message: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/{call}", data=json.dumps(message).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _read_request() -> Any:
    text = ""
    for line in sys.stdin:
        if line.rstrip("\n") == ".":
            return json.loads(text)
        text += line
    raise SystemExit("the request has no end")


def _input_is_open() -> bool:
    return not select.select([0], [], [], 0)[0]


def storage_ping(url: str, storage: str, volume: str, machine_uuid: str) -> int:
    """The exit code of a session."""
    assert os.environ["SSH_ORIGINAL_COMMAND"] == "turku-ping-remote"
    request = _read_request()
    assert set(request) >= {"verbose", "action", "port"}
    assert 49152 <= request["port"] <= 65535
    try:
        # The existing system does not look. A test is not to fail because somebody's connection had the port.
        tunnel_ownership.require_own_tunnel(request["port"])
    except TunnelRefused as error:
        return error.exit_code
    if request["action"] == "restore":
        _say(storage, "INFO", f"Restore mode active on port {request['port']}.  Good luck.")
        while os.read(0, 1024):
            pass
        Path(volume).mkdir(parents=True, exist_ok=True)
        Path(volume, "restore-ended").touch()
        return 0
    assert request["action"] == "checkin"
    credentials = {"name": storage, "secret": "s"}
    machine = _ask(url, "storage_ping_checkin", {"storage": credentials, "machine": {"uuid": machine_uuid}})["machine"]
    for name, order in machine["scheduled_sources"].items():
        if name not in request["sources"] or order["storage"]["name"] != storage:
            continue
        _say(storage, "INFO", f"Source {name}: starting")
        begin = time.time()
        target = Path(volume, machine_uuid, name)
        target.mkdir(parents=True, exist_ok=True)
        argv = ["rsync", "--archive", "--delete", "--numeric-ids", "--verbose"]
        if order["bwlimit"]:
            argv.append(f"--bwlimit={order['bwlimit']}")
        login = request["sources"][name]
        completed = subprocess.run(
            [*argv, f"rsync://{login['username']}@127.0.0.1:{request['port']}/{name}/", f"{target}/"],
            env={**os.environ, "RSYNC_PASSWORD": login["password"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if request["verbose"]:
            for line in completed.stdout.splitlines():
                _say(storage, "INFO", f"{name}: {line}")
        report = {
            "success": completed.returncode in (0, 24),
            "snapshot": name,
            "summary": completed.stdout[-1000:],
            "time_begin": begin,
            "time_end": time.time(),
        }
        message = {"storage": credentials, "machine": {"uuid": machine_uuid, "sources": {name: report}}}
        _ask(url, "storage_ping_source_update", message)
    if not _input_is_open():
        _say(storage, "ERROR", "the machine closed standard input before the end")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(storage_ping(*sys.argv[1:]))
