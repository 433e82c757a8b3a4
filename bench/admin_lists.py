"""The seconds that each list of the admin site takes: as it opens, at its last page, by each filter, sorted by each
column, searched.

Run as a child of a benchmark with the coordinator's own environment: `python -m bench.admin_lists URL` (of the
coordinator, without path). Prints a line of JSON for each page: ``{"list", "page", "seconds", "bytes"}``.
"""

import argparse
import http.client
import json
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from bench.filled_database import machine_uuid

ROUNDS = 3
_MACHINE = 4711
SEARCHES = {
    "one uuid": str(machine_uuid(_MACHINE)),
    "one unit": f"unit-{_MACHINE}",
    "many": "unit-4",
    "nearly all": "e",
    "two words": f"service-{_MACHINE % 400} unit-47",
    "nothing": "zebra-crossing",
}


def pages() -> Iterator[tuple[str, str, str]]:
    """List, page and path of every list that holds many rows."""
    from django.contrib import admin
    from django.contrib.auth.models import User
    from django.test import RequestFactory
    from django.urls import reverse

    person = User.objects.get()
    for model, model_admin in sorted(admin.site._registry.items(), key=lambda item: item[0].__name__):
        name = str(model._meta.verbose_name_plural)
        path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        request = RequestFactory().get(path)
        request.user = person
        changelist = model_admin.get_changelist_instance(request)
        yield name, "as it opens", path
        last = changelist.paginator.num_pages
        if last > 1:
            yield name, "last page", f"{path}?p={last}"
        for spec in changelist.filter_specs:
            for choice in list(spec.choices(changelist))[1:8]:
                yield name, f"{spec.title}: {choice['display']}", f"{path}{choice['query_string']}"
        sortable = model_admin.get_sortable_by(request)
        for index, column in enumerate(map(str, model_admin.list_display), start=1):
            field = getattr(model_admin, column, None)
            has_order = hasattr(field, "admin_order_field") or column in {each.name for each in model._meta.fields}
            if column in sortable and has_order:
                yield name, f"sorted by {column}", f"{path}?o={index}"
                yield name, f"sorted by {column}, downwards", f"{path}?o=-{index}"
        if model_admin.search_fields:
            for what, text in SEARCHES.items():
                yield name, f"search for {what}", f"{path}?q={quote(text)}"


def session_cookie() -> str:
    """The Cookie header of a person who is logged in."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore

    person = User.objects.get()
    session = SessionStore()
    session[SESSION_KEY] = str(person.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = person.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


def get(connection: http.client.HTTPConnection, path: str, cookie: str) -> int:
    """The size of the page. Raises RuntimeError where it is not the list."""
    connection.request("GET", path, headers={"Cookie": cookie, "Host": "localhost"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200 or (b"result_list" not in content and b'id="changelist"' not in content):
        raise RuntimeError(f"{path} answered {response.status}")
    return len(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="lists whose name begins so")
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")
    import django

    django.setup()
    cookie = session_cookie()
    connection = http.client.HTTPConnection(urlsplit(arguments.url).netloc, timeout=120)
    for name, page, path in pages():
        if not name.startswith(arguments.only):
            continue
        size, seconds = 0, []
        for number in range(arguments.rounds + 1):
            begun = time.perf_counter()
            size = get(connection, path, cookie)
            if number:
                seconds.append(time.perf_counter() - begun)
        figure: dict[str, Any] = {"list": name, "page": page, "seconds": round(statistics.median(seconds), 4)}
        print(json.dumps({**figure, "bytes": size}), flush=True)


if __name__ == "__main__":
    main()
