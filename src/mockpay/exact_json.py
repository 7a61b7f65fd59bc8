"""JSON with exact numbers both ways: a Decimal is a JSON number, and a number with a fraction is a Decimal."""

from decimal import Decimal
from typing import Any

import msgspec


def _as_base(value: object) -> object:
    """Our own field types are subclasses of these, which msgspec does not encode by itself."""
    match value:
        case str():
            return str(value)
        case Decimal():
            return Decimal(value)
        case dict():
            return dict(value)
        case tuple():
            return list(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=_as_base)
_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="sorted", enc_hook=_as_base)
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


def encode(value: object) -> bytes:
    return _ENCODER.encode(value)


def encode_canonical(value: object) -> bytes:
    """Keys sorted: equal values have equal bytes, whatever order they were given in."""
    return _CANONICAL.encode(value)


def decode(text: bytes | str) -> Any:
    """Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError or decimal.InvalidOperation."""
    return _DECODER.decode(text)
