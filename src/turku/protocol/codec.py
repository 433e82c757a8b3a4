"""The codec of all conversations: JSON to typed messages and back, bounded, with errors that name the field."""

from typing import Any, TypeVar

import msgspec

from turku.errors import MalformedMessage

T = TypeVar("T")

MESSAGE_LIMIT_BYTES = 2 * 1024 * 1024
"""Far above every message of the contract: 1,000 sources with options of 1,000 characters are 1 MB."""
_SENTENCE_LIMIT = 400


def decode(content: bytes, kind: type[T], *, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> T:
    """Return the message in ``content``. Unknown keys are ignored, because newer programs talk to older ones.

    Raises MalformedMessage naming the field by its path (``machine.uuid``).
    """
    if len(content) > limit_bytes:
        raise MalformedMessage(f"the message is larger than {limit_bytes} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        sentence = str(error)
        if " - at `" not in sentence:
            sentence += " - at the top of the message"
        raise MalformedMessage(_shortened(sentence.replace("`$.", "`"))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"the message is not JSON in UTF-8: {error}") from None
    except RecursionError:
        raise MalformedMessage("the message is nested too deeply") from None


def _shortened(sentence: str) -> str:
    # The decoder quotes the whole value, and the end of the sentence names the field.
    if len(sentence) <= _SENTENCE_LIMIT:
        return sentence
    half = _SENTENCE_LIMIT // 2
    return f"{sentence[:half]}...{sentence[-half:]}"


def encode(message: Any) -> bytes:
    """Return the message as JSON without line breaks. Its type decides which keys are omitted."""
    return msgspec.json.encode(message)
