"""Whatever a client sends, each call answers with 200 or a 4xx whose sentence names the field, never with 500."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.api_cast import Cast, introduce
from tests.support.api_messages import CALLS, changed, drop, lawful_messages, places, put

from turku.api.fleet.identity import keyring, throttle
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Machine
from turku.core.clock import SYSTEM_CLOCK

CODE = "c" * 30
fixture_is_not_reset = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["\0", "x" * 5000, "../x", "\n"]
)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | text
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
)


@pytest.fixture
def cast(db: None) -> Cast:
    introduced = introduce()
    Machine.objects.update(
        re_enrol_code_hash=keyring.current().hash(Purpose.RE_ENROL_CODE, CODE),
        date_re_enrol_code_ends=SYSTEM_CLOCK.now() + timedelta(hours=1),
    )
    return introduced


def send(call: str, body: bytes, **headers: Any) -> tuple[int, str]:
    """Status and sentence."""
    # Bad credentials are among the requests here. Their throttle has tests of its own.
    throttle.CREDENTIALS.forget()
    client = Client(raise_request_exception=False)
    response = client.post(f"/v1/{call}", body, content_type="application/json", **headers)
    sentence: str = json.loads(response.content).get("error", "")
    assert response.status_code < 500, f"{call} {body[:300]!r}: {response.status_code} {sentence}"
    if response.status_code >= 400:
        assert sentence
    return response.status_code, sentence


def valid_messages(cast: Cast) -> dict[str, Any]:
    return lawful_messages(
        cast.alice,
        cast.bob,
        machine_auth={"name": "machines", "secret": cast.machine_secret},
        storage_auth={"name": "storages", "secret": cast.storage_secret},
        re_enrol_code=CODE,
    )


@pytest.mark.parametrize("call", CALLS)
def test_the_lawful_messages_are_lawful(cast: Cast, call: str) -> None:
    assert send(call, json.dumps(valid_messages(cast)[call]).encode()) == (200, "")


@pytest.mark.parametrize("call", CALLS)
@fixture_is_not_reset
@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(cast: Cast, call: str, body: bytes) -> None:
    try:
        json.loads(body)
    except ValueError:
        assert send(call, body)[0] == 400
    else:
        send(call, body)


@pytest.mark.parametrize("call", CALLS)
@fixture_is_not_reset
@given(message=json_values)
def test_arbitrary_json_never_fails_the_server(cast: Cast, call: str, message: Any) -> None:
    send(call, json.dumps(message).encode())


@pytest.mark.parametrize("call", [call for call in CALLS if call != "health"])
@fixture_is_not_reset
@given(data=st.data())
def test_any_value_anywhere_never_fails_the_server(cast: Cast, call: str, data: st.DataObject) -> None:
    message = valid_messages(cast)[call]
    path = data.draw(st.sampled_from(places(message)))
    value = data.draw(json_values)
    ascii_only = data.draw(st.booleans())
    send(call, json.dumps(changed(message, path, put(value)), ensure_ascii=ascii_only).encode())


@pytest.mark.parametrize("call", [call for call in CALLS if call != "health"])
def test_a_wrong_type_is_named_by_its_field(cast: Cast, call: str) -> None:
    message = valid_messages(cast)[call]
    for path in places(message):
        if "other" in path:
            continue
        field = next(part for part in reversed(path) if isinstance(part, str))
        status, sentence = send(call, json.dumps(changed(message, path, put([[{}]]))).encode())
        assert status == 400
        # The decoder names the dictionary, not its free keys: sources.
        assert field in sentence or "sources[...]" in sentence, (path, sentence)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "health"])
def test_a_missing_key_is_named(cast: Cast, call: str) -> None:
    message = valid_messages(cast)[call]
    for path in places(message):
        if isinstance(path[-1], int):
            continue
        copy = changed(message, path, drop)
        status, sentence = send(call, json.dumps(copy).encode())
        assert status in (200, 400)
        if status == 400:
            assert str(path[-1]) in sentence


@pytest.mark.parametrize("call", [call for call in CALLS if call != "health"])
def test_nul_is_refused_by_field_wherever_it_stands(cast: Cast, call: str) -> None:
    message = valid_messages(cast)[call]
    for path in places(message):
        status, sentence = send(call, json.dumps(changed(message, path, put("a\0b"))).encode())
        assert status == 400
        assert next(part for part in reversed(path) if isinstance(part, str)) in sentence or "[...]" in sentence


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"[" * 100_000, id="deep lists"),
        pytest.param(b'{"machine":' * 100_000, id="deep dictionaries"),
        pytest.param(b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", id="deep in an ignored key"),
        pytest.param(b'{"machine": "\xff\xfe"}', id="not UTF-8"),
        pytest.param(b'{"machine": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"machine": {"uuid": ' + b"9" * 10_000 + b'}, "x": "\\u0000"}', id="huge integer"),
        pytest.param(b'{"machine": {"uuid": 1e999}, "x": "\\u0000"}', id="huge float"),
        pytest.param(b'{"a": "' + b"x" * (5 * 1024 * 1024) + b'"}', id="5 MB"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"x": "\\u0000", "y": ' + b"[" * 900 + b'"\\u0000"' + b"]" * 900 + b"}", id="NUL, deep"),
    ],
)
def test_hostile_bodies_are_refused(cast: Cast, call: str, body: bytes) -> None:
    assert send(call, body)[0] == 400


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options", "patch"])
def test_other_methods_are_405(client: Client, call: str, method: str) -> None:
    response = getattr(client, method)(f"/v1/{call}")
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("call", CALLS)
def test_a_slash_at_the_end_changes_nothing(cast: Cast, call: str) -> None:
    message = json.dumps(valid_messages(cast)[call]).encode()
    assert send(f"{call}/", message)[0] == 200


def test_an_unknown_call_is_404(client: Client) -> None:
    assert send("sudo", b"{}")[0] == 404


def test_a_foreign_host_header_is_refused(cast: Cast) -> None:
    assert send("health", b"{}", HTTP_HOST="evil.example.com")[0] == 400
