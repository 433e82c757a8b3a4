"""The comparison for the checkin: the same call, as the existing system is understood to answer it.

A small Django application on the same models and database. Assumed of the existing system, from its description and the
contract alone (sections 3 and 7), and no more than the figure depends on:

- a machine's secret is stored with Django's default password hash (PBKDF2) and verified at every call,
- the sources are read one by one: each with a query for its filter sets, each that is due with a query for its storage,
- the whole row of the machine is saved at every call,
- Django's usual middleware stands before it.

A benchmark writes the hash of COMMON_SECRET into every machine's row: the cost of verifying does not depend on whose
secret it is, and 100,000 such hashes would take eight hours to make.
"""

import json
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

COMMON_SECRET = "the-one-secret-of-all-machines"

settings.ROOT_URLCONF = __name__
settings.MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
application = get_wsgi_application()


@csrf_exempt
def agent_ping_checkin(request: HttpRequest) -> JsonResponse:
    """The sources of the machine that are due now."""
    from django.contrib.auth.hashers import check_password
    from django.utils import timezone

    from turku.api.backups.models import Source
    from turku.api.fleet.models import FilterSet, Machine, Storage

    declared = json.loads(request.body)["machine"]
    machine = Machine.objects.filter(uuid=declared["uuid"], active=True).first()
    if machine is None or not check_password(declared["secret"], machine.secret_hash):
        return JsonResponse({"error": "Forbidden"}, status=403)
    assert machine.storage_id is not None
    now = timezone.now()
    orders: dict[str, Any] = {}
    for source in Source.objects.filter(machine=machine, active=True, published=True):
        rules = list(source.filter)
        for filter_set in FilterSet.objects.filter(active=True):
            if f"merge {filter_set.name}" in rules:
                rules.remove(f"merge {filter_set.name}")
                rules += filter_set.rules
        if source.date_next_backup > now:
            continue
        storage = Storage.objects.get(pk=machine.storage_id)
        orders[source.name] = {
            **{name: getattr(source, name) for name in ("path", "retention", "bwlimit", "exclude", "shared_service")},
            **{name: getattr(source, name) for name in ("large_rotating_files", "large_modifying_files")},
            **{name: getattr(source, name) for name in ("snapshot_mode", "preserve_hard_links")},
            "filter": rules,
            "storage": {
                "name": storage.name,
                "ssh_ping_host": storage.ssh_ping_host,
                "ssh_ping_host_keys": storage.ssh_ping_host_keys,
                "ssh_ping_port": storage.ssh_ping_port,
                "ssh_ping_user": storage.ssh_ping_user,
            },
        }
    machine.date_checked_in = now
    machine.save()
    return JsonResponse({"machine": {"scheduled_sources": orders}})


urlpatterns = [path("v1/agent_ping_checkin", agent_ping_checkin)]


def slow_down() -> None:
    """Give every machine of the environment's database the slow hash of COMMON_SECRET."""
    from django.contrib.auth.hashers import make_password

    from turku.api.fleet.models import Machine

    Machine.objects.update(secret_hash=make_password(COMMON_SECRET))


if __name__ == "__main__":
    slow_down()
