"""Services of the host: they read their files again, and units of a program are stopped."""

from collections.abc import Iterable

from turku.core.setup.host import Host
from turku.core.setup.record import Reload
from turku.errors import CommandFailed

_SSH_SERVICES = ("ssh.service", "sshd.service")


def reload_services(host: Host, reloads: Iterable[Reload]) -> None:
    """Let each service that is running read its files again. Raises CommandFailed."""
    for reload in dict.fromkeys(reloads):
        if reload is Reload.SYSTEMD and host.has_systemd:
            host.run(["systemctl", "daemon-reload"])
        elif reload is Reload.SSHD:
            _reload_sshd(host)


def _reload_sshd(host: Host) -> None:
    if not host.has_systemd:
        if host.find_program("service") and host.succeeds("service", "ssh", "status"):
            host.run(["service", "ssh", "reload"])
        return
    for service in _SSH_SERVICES:
        if host.succeeds("systemctl", "--quiet", "is-active", service):
            host.run(["systemctl", "reload", service])
            return


def is_running(host: Host, unit: str) -> bool:
    """Return True if the unit is enabled and running with the file that is installed."""
    return (
        host.succeeds("systemctl", "--quiet", "is-enabled", unit)
        and host.succeeds("systemctl", "--quiet", "is-active", unit)
        and not has_newer_file(host, unit)
    )


def has_newer_file(host: Host, unit: str) -> bool:
    """Return True if the service manager has not read the unit's present file yet."""
    return b"yes" in host.run(["systemctl", "show", "--property=NeedDaemonReload", unit]).stdout


def stop(host: Host, unit: str) -> None:
    """Stop and disable a unit. One that is gone already is no error. Raises CommandFailed."""
    if not host.has_systemd:
        return
    try:
        host.run(["systemctl", "disable", "--now", unit])
    except CommandFailed:
        if host.succeeds("systemctl", "cat", unit):
            raise
