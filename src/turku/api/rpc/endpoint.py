"""Calls as Django views: limits, decoding, and refusals as JSON for any input."""

import logging
import math
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, TypeVar

from django.core.exceptions import RequestDataTooBig
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from turku.api.fleet.identity import keyring
from turku.api.fleet.identity.keyring import UnknownHashKey
from turku.api.fleet.identity.throttle import CREDENTIALS
from turku.api.request import client_address
from turku.core.log import one_line
from turku.errors import ApiForbidden, ApiRefused, ApiRemoved, InvalidValue, MalformedMessage
from turku.protocol import codec
from turku.protocol.messages import Empty

Request = TypeVar("Request")
View = Callable[[HttpRequest], HttpResponse]

_log = logging.getLogger(__name__)

_LOGGED_LENGTH = 500
_NUL_ESCAPE = b"\\u0000"


def refusal(status: int, sentence: str, **fields: Any) -> HttpResponse:
    """Return the answer ``{"error": sentence}`` with that status, and further fields."""
    return _json(status, {"error": sentence, **fields})


def _json(status: int, message: Any) -> HttpResponse:
    return HttpResponse(codec.encode(message), status=status, content_type="application/json")


def wrong_method(request: HttpRequest) -> HttpResponse | None:
    """Return the refusal of a call with another method than POST, or None."""
    if request.method == "POST":
        return None
    response = refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} must be called with POST")
    response.headers["Allow"] = "POST"
    return response


def decoded(request: HttpRequest, kind: type[Request]) -> Request:
    """Return the message in the body. Raises MalformedMessage."""
    # Django checks the announced length against its limit before it reads.
    try:
        body = request.body
    except RequestDataTooBig:
        raise MalformedMessage(f"the body is larger than {codec.MESSAGE_LIMIT_BYTES} bytes") from None
    except UnreadablePostError:
        raise MalformedMessage("the body broke off before its end") from None
    if not body.isascii():
        # The decoder skips unknown keys without checking their bytes.
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedMessage(f"the message is not UTF-8 text (byte {error.start})") from None
    message = codec.decode(body, kind)
    # JSON can carry NUL characters, and PostgreSQL cannot store them.
    if _NUL_ESCAPE in body and (place := next(_nul_characters(codec.decode(body, dict)), None)) is not None:
        raise MalformedMessage(f"NUL characters are not allowed - at `{place[:200].replace(chr(0), '')}`")
    return message


def _nul_characters(message: dict[str, Any]) -> Iterator[str]:
    """Return the paths of the fields that hold a NUL character."""
    # It is not recursive, because a message may be nested deeper than the stack.
    waiting: list[tuple[str, Any]] = list(message.items())
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            yield path
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            yield from (f"{path}: a key in it" for key in value if "\0" in key)
            waiting += [(f"{path}.{key}", item) for key, item in value.items()]


def _attempt(handle: Callable[[Request], Any], message: Request) -> Any:
    # Of two concurrent first registrations of one name, the second finds the row of the first when it tries again.
    try:
        return handle(message)
    except IntegrityError:
        return handle(message)
    except UnknownHashKey:
        # Another coordinator may have rotated the key, and the new file may be here already.
        keyring.forget()
        return handle(message)


def _presented(message: Any) -> tuple[str, str]:
    """Return the name and the secret that the message presents, or empty texts if it presents none."""
    storage, machine = getattr(message, "storage", None), getattr(message, "machine", None)
    if storage is not None:
        return f"storage {storage.name}", storage.secret
    if machine is not None:
        # A UUID has several spellings.
        return f"machine {machine.uuid.lower()}", machine.secret
    return "", ""


def _throttled(address: str, caller: str, secret: str) -> HttpResponse | None:
    seconds = CREDENTIALS.blocked_seconds(address, caller, secret)
    if not seconds:
        return None
    response = refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many bad credentials came from this address; wait a minute")
    response.headers["Retry-After"] = str(math.ceil(seconds))
    return response


def endpoint(kind: type[Request]) -> Callable[[Callable[[Request], Any]], View]:
    """Turn a function from a decoded message of type ``kind`` to an answer into a view.

    Refusals: 400 for MalformedMessage and InvalidValue, the error's own status for ApiRefused, 405 for other methods,
    429, before the database is asked, for an address that sent too many bad credentials, 503 where the database or its
    hash key is not to be had just now.
    """

    def decorate(handle: Callable[[Request], Any]) -> View:
        @csrf_exempt
        def view(request: HttpRequest) -> HttpResponse:
            if (refused := wrong_method(request)) is not None:
                return refused
            address = client_address.current_address()
            try:
                message = decoded(request, kind)
                caller, secret = _presented(message)
                if kind is not Empty and (throttled := _throttled(address, caller, secret)) is not None:
                    return throttled
                answer = _json(HTTPStatus.OK, _attempt(handle, message))
                if caller:
                    CREDENTIALS.succeeded(address, caller, secret)
                return answer
            except (MalformedMessage, InvalidValue) as error:
                status, sentence = int(HTTPStatus.BAD_REQUEST), error.sentence
            except ApiRemoved as error:
                # The secret was right, so this is nobody who guesses.
                _log.info("refused %s from %s: %s", request.path, address or "a Unix socket", one_line(error.message))
                return refusal(error.status, error.sentence, removed=True)
            except ApiRefused as error:
                if isinstance(error, ApiForbidden):
                    CREDENTIALS.failed(address)
                status, sentence = error.status, error.sentence
            except (DataError, IntegrityError):
                # Validation should have named the field. The log has the message of the database.
                _log.exception("a message passed validation and was refused by the database")
                status, sentence = int(HTTPStatus.BAD_REQUEST), "the database refused a value of this message"
            except (OperationalError, InterfaceError, UnknownHashKey) as error:
                _log.error("cannot answer %s: %s", request.path, " ".join(str(error).split()))
                return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the coordinator cannot use its database just now")
            # The text is cut before it is encoded, so that no character is split.
            shown = one_line(sentence[:_LOGGED_LENGTH])
            _log.info("refused %s from %s with %s: %s", request.path, address or "a Unix socket", status, shown)
            return refusal(status, sentence)

        view.__name__ = handle.__name__
        view.__doc__ = handle.__doc__
        return view

    return decorate


@csrf_exempt
def unknown_call(request: HttpRequest) -> HttpResponse:
    """Answer an unknown call with 404."""
    return refusal(HTTPStatus.NOT_FOUND, f"there is no call {one_line(request.path)[:200]}")
