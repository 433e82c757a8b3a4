"""The first account of the site. Setup calls these functions through ``turku-api shell``, as the service's user."""

import json
import sys

from turku.core.secret import Secret

_HAS_ONE = "yes"


def show_whether_there_is_one() -> None:
    """Print yes if somebody can already log in to the site and change everything there."""
    from django.contrib.auth import get_user_model

    print(_HAS_ONE if get_user_model()._default_manager.filter(is_superuser=True).exists() else "no")  # noqa: T201


def create_from_input() -> None:
    """Create the account that standard input describes, unless there is one. Exit with the fault of its password."""
    from django.contrib.auth import get_user_model, password_validation
    from django.core.exceptions import ValidationError

    described = json.loads(sys.stdin.readline())
    model = get_user_model()
    if model._default_manager.filter(is_superuser=True).exists():
        return
    user = model(username=described["name"], is_staff=True, is_superuser=True, is_active=True)
    try:
        user.clean_fields(exclude=["password"])
        password_validation.validate_password(described["password"], user)
    except ValidationError as error:
        sys.exit("; ".join(error.messages))
    user.set_password(described["password"])
    user.save()


def description(name: str, password: Secret) -> bytes:
    """Return the input of ``create_from_input``."""
    return json.dumps({"name": name, "password": password.reveal()}).encode() + b"\n"


def has_one(output: bytes) -> bool:
    """Return True if ``show_whether_there_is_one`` printed yes."""
    return output.strip() == _HAS_ONE.encode()
