"""Successful and failed logins of people, from the signals of Django."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver

from turku.api.audit import log
from turku.api.audit.models import ActorKind
from turku.core.clock import SYSTEM_CLOCK


@receiver(user_logged_in)
def logged_in(user: Any, **_arguments: Any) -> None:
    """Record that a person logged in."""
    log.record(log.person(user), [log.NewEntry("login.succeeded", user)], now=SYSTEM_CLOCK.now())


@receiver(user_logged_out)
def logged_out(user: Any, **_arguments: Any) -> None:
    """Record that a person logged out."""
    if user is not None:
        log.record(log.person(user), [log.NewEntry("login.ended", user)], now=SYSTEM_CLOCK.now())


@receiver(user_login_failed)
def login_failed(credentials: dict[str, Any], **_arguments: Any) -> None:
    """Record a failed login.

    The name is kept only if a user has it. Otherwise it may be a password that was typed into the wrong field.
    """
    model = get_user_model()
    name = str(credentials.get(model.USERNAME_FIELD, ""))
    user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    actor = log.Actor(ActorKind.UNKNOWN)
    log.record(actor, [log.NewEntry("login.failed", user)], now=SYSTEM_CLOCK.now())
