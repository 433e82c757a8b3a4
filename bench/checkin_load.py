"""Checkins of random machines against a coordinator, by wrk (Debian package `wrk`): many more than Python can send."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from turku.core import command
from turku.errors import CommandFailed

_SCRIPT = """

local bodies = {}
local headers = { ["Content-Type"] = "application/json", ["Accept"] = "application/json" }

function init(arguments)
  for line in io.lines(arguments[1]) do
    local uuid, secret = line:match("^(%S+) (%S+)$")
    bodies[#bodies + 1] = '{"machine":{"uuid":"' .. uuid .. '","secret":"' .. secret .. '"}}'
  end
  if arguments[2] == "close" then headers["Connection"] = "close" end
  math.randomseed(tonumber(arguments[3]))
end

function request()
  return wrk.format("POST", nil, headers, bodies[math.random(#bodies)])
end

function done(summary, latency, requests)
  io.write(string.format(
    '\\n{"requests": %d, "microseconds": %d, "bad_status": %d, "broken": %d, "p50": %d, "p99": %d, "worst": %d}\\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True)
class Figure:
    """The result of one load. Times are those between sending a request and having the whole answer."""

    requests_per_second: float
    p50_seconds: float
    p99_seconds: float
    requests: int
    failed: int
    """Answers with another status than 2xx and connections that broke: a figure with any is none."""

    def __str__(self) -> str:
        failed = f", {self.failed} FAILED" if self.failed else ""
        return (
            f"{self.requests_per_second:8.1f}/s  p50 {self.p50_seconds * 1000:7.1f} ms  "
            f"p99 {self.p99_seconds * 1000:7.1f} ms  ({self.requests} calls{failed})"
        )


def require() -> None:
    """Raise CommandFailed where wrk is not installed."""
    if shutil.which("wrk") is None:
        raise CommandFailed("wrk is not installed", hint="apt install wrk")


def measure(url: str, callers: Path, *, seconds: int, connections: int, keep_alive: bool, seed: int = 1) -> Figure:
    """The figure of ``seconds`` of checkins at ``url`` (.../v1), each by a random line of ``callers``.

    Every connection sends its next request as soon as it is answered: the load is as much as the coordinator takes.
    Without ``keep_alive`` each request makes a connection of its own, as agents do.
    """
    script = callers.with_name("checkin.lua")
    script.write_text(_SCRIPT)
    wrk = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    mode = "keep-alive" if keep_alive else "close"
    completed = command.run(
        [*wrk, "--timeout", "60s", "--script", script, f"{url}/agent_ping_checkin", "--", callers, mode, str(seed)],
        timeout_seconds=seconds + 120,
    )
    said = json.loads(completed.stdout.decode().strip().splitlines()[-1])
    seconds_taken = said["microseconds"] / 1e6
    failed = said["bad_status"] + said["broken"]
    return Figure(
        requests_per_second=(said["requests"] - failed) / seconds_taken,
        p50_seconds=said["p50"] / 1e6,
        p99_seconds=said["p99"] / 1e6,
        requests=said["requests"],
        failed=failed,
    )
