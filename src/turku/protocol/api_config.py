"""The section of agent and storage about the coordinator that they report to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from turku.core.configuration.declaration import Key, Line, Section
from turku.core.configuration.directory import MergedFiles
from turku.core.secret import Secret
from turku.errors import ConfigurationError
from turku.protocol.certificate import FINGERPRINTS_LIMIT, Fingerprint
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

    api_key_fingerprints: Annotated[
        tuple[Fingerprint, ...],
        Meta(max_length=FINGERPRINTS_LIMIT),
        Key(
            "Fingerprints of the coordinator's TLS key, as `turku-api tls show` prints them. Exactly a server with one "
            "of these keys is accepted, whatever its certificate says. Without them, its certificate must be valid for "
            "the address by the authorities of the system. A change of the key that the coordinator announces is "
            "followed ([more](../howto/reverse-proxy.md#change-the-key)).",
            default_text="none",
        ),
    ] = ()

    @property
    def registration(self) -> RegistrationAuth | None:
        """The Auth to register with, if there is one."""
        if self.api_auth_name is not None and self.api_auth_secret is not None:
            return Registration(name=self.api_auth_name, secret=self.api_auth_secret.reveal())
        return None if self.api_auth is None else self.api_auth.reveal()

    def client(self, var_dir: Path) -> ApiClient:
        """Return a client of the coordinator's calls. ``var_dir`` holds the keys that the coordinator announced."""
        keys = self.accepted_keys(var_dir)
        return ApiClient(self.api_url, allow_plain_http=self.allow_plain_http, accepted_keys=keys)

    def accepted_keys(self, var_dir: Path) -> tuple[str, ...]:
        """Return the fingerprints of keys that are accepted now. None stands for the authorities of the system."""
        if not self.api_key_fingerprints:
            return ()
        # Most programs pin no key, and every ping starts one.
        from turku.protocol import pinned_keys

        return pinned_keys.accepted(self.api_key_fingerprints, var_dir)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the address that would send secrets in the clear, and half of a registration."""
        try:
            checked_url(self.api_url, allow_plain_http=self.allow_plain_http)
        except ConfigurationError as error:
            yield "api_url", f"{error.message.removeprefix('api_url: ')}; {error.hint}".removesuffix("; ")
        if self.api_key_fingerprints and not self.api_url.startswith("https://"):
            yield "api_key_fingerprints", "goes only with an api_url that begins with https://"
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
