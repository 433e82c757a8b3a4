"""A profile as its operator writes it: a document in JSON or YAML, or a form of the admin site."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from turku.api.backups.profiles.models import MachineProfile
from turku.api.fleet.models import Auth, AuthKind
from turku.core.configuration import text as configuration_text
from turku.errors import InvalidValue
from turku.policy import names
from turku.policy.declaration import profiles

PROFILES_LIMIT = 1000
"""Profiles of one coordinator."""


class MachineGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The machines that fulfil every condition that is set. ``join_token`` is the name of a registration Auth."""

    join_token: str = ""
    environment: str = ""
    service: str = ""


class ProfileDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A profile. ``defaults`` are options of each source that does not set them."""

    name: str
    machines: Literal["all"] | MachineGroup
    sources: Annotated[dict[str, dict[str, Any]], Meta(min_length=1)]
    defaults: dict[str, Any] = {}
    comment: str = ""


def read(text: str, *, suffix: str) -> ProfileDocument:
    """Return the document in a text. ``suffix`` is that of its file, if it has one. Raises InvalidValue."""
    try:
        return msgspec.convert(parse(text, suffix=suffix), ProfileDocument)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"it is not a profile: {error}", hint="docs/howto/profiles.md has an example") from None


def parse(text: str, *, suffix: str) -> Any:
    """Return the content of a text in JSON or YAML. Raises InvalidValue."""
    is_yaml = suffix in (".yaml", ".yml") or (suffix != ".json" and not text.lstrip().startswith("{"))
    try:
        parsed = configuration_text.parse_yaml(text) if is_yaml else configuration_text.parse_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"it cannot be read: {error}") from None
    for line, path, sentence in parsed.faults:
        raise InvalidValue(f"line {line}, {'.'.join(path)}: {sentence}")
    return parsed.content


def to_document(profile: MachineProfile) -> ProfileDocument:
    """Return the document of a profile, from which ``to_profile`` makes the same profile."""
    group = MachineGroup(
        join_token=profile.auth.name if profile.auth is not None else "",
        environment=profile.environment_name,
        service=profile.service_name,
    )
    return ProfileDocument(
        name=profile.name,
        machines="all" if profile.all_machines else group,
        sources=profile.sources,
        defaults=profile.defaults,
        comment=profile.comment,
    )


def to_profile(document: ProfileDocument) -> MachineProfile:
    """Return the profile of that name with the content of the document, checked and not saved. Raises InvalidValue."""
    name = profiles.profile_name(document.name)
    known = MachineProfile.objects.select_related("auth").filter(name=name).first()
    if known is None and MachineProfile.objects.count() >= PROFILES_LIMIT:
        raise InvalidValue(f"there are {PROFILES_LIMIT} profiles already")
    row = known or MachineProfile(name=name)
    row.comment = names.label(document.comment, kind="comment") if document.comment else ""
    group = MachineGroup() if document.machines == "all" else document.machines
    row.all_machines = document.machines == "all"
    row.environment_name = names.label(group.environment, kind="environment name") if group.environment else ""
    row.service_name = names.label(group.service, kind="service name") if group.service else ""
    row.auth = _auth(group.join_token) if group.join_token else None
    if not (row.all_machines or row.auth or row.environment_name or row.service_name):
        raise InvalidValue(
            "machines: names no group", hint="set join_token, environment or service, or write: machines: all"
        )
    check(document.sources, document.defaults)
    row.sources, row.defaults = document.sources, document.defaults
    return row


def _auth(name: str) -> Auth:
    found = Auth.objects.filter(kind=AuthKind.MACHINE, name=name).first()
    if found is None:
        raise InvalidValue(f"machines.join_token: there is none named {name!r} for machines")
    return found


def check(sources: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any]) -> None:
    """Raise InvalidValue unless machines could take all of these sources."""
    if "path" in defaults:
        raise InvalidValue("defaults: path is for each source")
    try:
        names.source_names(sources)
    except InvalidValue as error:
        raise InvalidValue(f"sources: {error.message}", hint=error.hint) from None
    complete = profiles.with_defaults(sources, defaults)
    for name, options in complete.items():
        for problem in profiles.problems(options):
            raise InvalidValue(f"sources.{name}: {problem}")
    choice = profiles.choose([profiles.Profile("checked", complete)], accepts=["/"], own=())
    for refused in choice.refused:
        raise InvalidValue(f"sources.{refused.name}: {refused.reason}")


def complete(profile: MachineProfile) -> dict[str, dict[str, Any]]:
    """Return the sources of a profile with its defaults."""
    return profiles.with_defaults(profile.sources, profile.defaults)


def group_text(profile: MachineProfile) -> str:
    """Return the group of a profile in words."""
    conditions = {
        "join token": profile.auth.name if profile.auth is not None else "",
        "environment": profile.environment_name,
        "service": profile.service_name,
    }
    return ", ".join(f"{word} {value}" for word, value in conditions.items() if value) or "all machines"
