"""The section of agent and storage about the coordinator that they report to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from turku.core.configuration.declaration import Key, Line, Section
from turku.core.configuration.directory import MergedFiles
from turku.core.secret import Secret
from turku.errors import ConfigurationError
from turku.protocol.client import ApiClient, checked_url
from turku.protocol.messages import Registration, RegistrationAuth


class ApiConfig(Section, frozen=True, kw_only=True):
    """The coordinator."""

    api_url: Annotated[
        Line,
        Key(
            "Address of the coordinator, with the version: `https://turku.example.com/v1`. Plain `http://` is accepted "
            "for loopback addresses only.",
            check=lambda url: url.rstrip("/"),
            example="https://turku.example.com/v1",
        ),
    ]
    api_auth: Annotated[
        Secret | None,
        Key(
            "Registration string: the bare secret of an Auth, of kind `machine_reg` for a machine and `storage_reg` "
            "for a storage. It is needed once, to register.",
            example="AUTH STRING",
        ),
    ] = None
    api_auth_name: Annotated[Line | None, Key("With `api_auth_secret`: name of the Auth, instead of `api_auth`.")] = (
        None
    )
    api_auth_secret: Annotated[Secret | None, Key("Secret of the Auth named by `api_auth_name`.")] = None
    allow_plain_http: Annotated[
        bool, Key("Accepts `http://` to any address. Secrets then cross the network in the clear.")
    ] = False

    @property
    def registration(self) -> RegistrationAuth | None:
        """The Auth to register with, if there is one."""
        if self.api_auth_name is not None and self.api_auth_secret is not None:
            return Registration(name=self.api_auth_name, secret=self.api_auth_secret.reveal())
        return None if self.api_auth is None else self.api_auth.reveal()

    def client(self) -> ApiClient:
        """Return a client of the coordinator's calls."""
        return ApiClient(self.api_url, allow_plain_http=self.allow_plain_http)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the address that would send secrets in the clear, and half of a registration."""
        try:
            checked_url(self.api_url, allow_plain_http=self.allow_plain_http)
        except ConfigurationError as error:
            yield "api_url", f"{error.message.removeprefix('api_url: ')}; {error.hint}".removesuffix("; ")
        if (self.api_auth_name is None) != (self.api_auth_secret is None):
            yield (
                "api_auth_secret" if self.api_auth_name is None else "api_auth_name",
                "goes only with its other half: api_auth_name and api_auth_secret belong together",
            )


def override_registration(files: MergedFiles, name: str | None, secret: str | None) -> None:
    """Let the name and secret of an Auth from the command line win over the files."""
    given = {"api_auth_name": name, "api_auth_secret": secret}
    for key, value in given.items():
        if value is not None:
            files.content[key], files.origins[key] = value, Path("the command line")
            files.content.pop("api_auth", None)
