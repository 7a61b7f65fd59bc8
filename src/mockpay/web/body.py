"""Decode a JSON body strictly, and report every fault in it at once.

msgspec stops at the first fault, so the fields are converted one by one.
"""

import functools
from collections.abc import Collection, Iterator
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Protocol, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from mockpay import exact_json
from mockpay.errors import Fault, InvalidRequest, MalformedJson

UNKNOWN_FIELDS_MAX = 20
"""More than these are not listed: the answer must not be many times the request."""

WHOLE_DIGITS_MAX = 20
"""As many as no field needs: 1e9999999 must not be written out to be found too large."""

Model = TypeVar("Model", bound=msgspec.Struct)


class Parsed(Protocol):
    """A field type that reads itself from JSON; `parse` raises ValueError with a sentence for the client."""

    @classmethod
    def parse(cls, raw: object) -> Any: ...


def decode_json(body: bytes) -> Any:
    """JSON with exact numbers: one with a fraction or an exponent becomes a Decimal, never a float.

    Raises MalformedJson.
    """
    try:
        return exact_json.decode(body)
    except RecursionError as error:
        raise MalformedJson("The body is nested too deeply.") from error
    except InvalidOperation as error:
        raise MalformedJson("The body holds a number whose exponent is too large.") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedJson(f"The body is not valid UTF-8 JSON: {error}.") from error


def media_type_of(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def is_json(content_type: str | None) -> bool:
    media_type = media_type_of(content_type)
    return media_type == "application/json" or media_type.endswith("+json")


def decode_body(body: bytes, model: type[Model]) -> Model:
    """Read `body` as `model`. Its `__post_init__` may raise InvalidRequest for faults between fields.

    Raises MalformedJson and InvalidRequest.
    """
    raw = decode_json(body)
    if not isinstance(raw, dict):
        raise InvalidRequest([Fault("body", "must be a JSON object")])
    try:
        return read_object(raw, model)
    except RecursionError as error:  # shallow enough to decode, too deep to walk
        raise MalformedJson("The body is nested too deeply.") from error


class _Field(msgspec.Struct, frozen=True):
    """`nested` is the model of an object inside the object, or of those in a list."""

    name: str
    sent_as: str
    type: Any
    is_required: bool
    nested: type[msgspec.Struct] | None
    is_list: bool


@functools.cache
def _fields(model: type[msgspec.Struct]) -> dict[str, _Field]:
    """By the name that clients know. Finding them out takes longer than reading a body."""
    return {field.encode_name: _field(field) for field in msgspec.structs.fields(model)}


def _field(field: msgspec.structs.FieldInfo) -> _Field:
    options = get_args(field.type) or (field.type,)
    nested = [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]
    return _Field(
        name=field.name,
        sent_as=field.encode_name,
        type=field.type,
        is_required=field.required,
        nested=nested[0] if nested else None,
        is_list=get_origin(field.type) is list,
    )


def read_object(raw: dict[str, Any], model: type[Model]) -> Model:
    """Of what is decoded already. Raises InvalidRequest."""
    fields = _fields(model)
    faults = [] if raw.keys() <= fields.keys() else [*islice(_unknown_fields(raw, fields), UNKNOWN_FIELDS_MAX)]
    values: dict[str, Any] = {}
    for field in fields.values():
        if field.sent_as not in raw:
            if field.is_required:
                faults.append(Fault(field.sent_as, "is required"))
            continue
        try:
            values[field.name] = _value(raw[field.sent_as], field)
        except InvalidRequest as error:
            faults += [Fault(f"{field.sent_as}.{fault.field}", fault.message) for fault in error.details]
        except ValueError as error:
            faults.append(Fault(field.sent_as, _sentence(error)))
    if faults:
        raise InvalidRequest(faults)
    return model(**values)


def _value(value: object, field: _Field) -> Any:
    """An object inside the object, or a list of them, is read as strictly.

    Raises InvalidRequest for its fields, and ValueError.
    """
    if field.nested is not None:
        if field.is_list and isinstance(value, list):
            return _read_list(value, field.nested)
        if not field.is_list and isinstance(value, dict):
            return read_object(value, field.nested)
    return convert(value, field.type)


def _read_list(values: list[Any], model: type[msgspec.Struct]) -> list[Any]:
    """Of objects. A fault names its place, counted from 0."""
    faults, found = [], []
    for number, value in enumerate(values):
        try:
            if not isinstance(value, dict):
                raise InvalidRequest([Fault("", "must be an object")])
            found.append(read_object(value, model))
        except InvalidRequest as error:
            faults += [Fault(f"{number}.{fault.field}".rstrip("."), fault.message) for fault in error.details]
    if faults:
        raise InvalidRequest(faults)
    return found


def convert(value: object, target: Any) -> Any:
    """Convert one decoded JSON value. Raises ValueError (msgspec's ValidationError is one)."""
    if _holds_nul(value):
        raise ValueError("must not hold NUL characters")
    try:
        return msgspec.convert(value, target, dec_hook=_decode_hook)
    except msgspec.ValidationError:
        if not _is_whole(value):
            raise
        return msgspec.convert(int(value), target, dec_hook=_decode_hook)


def _is_whole(value: object) -> TypeGuard[Decimal]:
    """To JSON 60.0 is as much an integer as 60."""
    return (
        isinstance(value, Decimal)
        and value.is_finite()
        and abs(value.adjusted()) < WHOLE_DIGITS_MAX
        and value == value.to_integral_value()
    )


def _decode_hook(target: Any, value: object) -> Any:
    """msgspec asks here for what it does not know by itself: our own field types."""
    reader: Parsed = target
    return reader.parse(value)


def _unknown_fields(raw: dict[str, object], known: Collection[str]) -> Iterator[Fault]:
    for name in raw:
        if name not in known:
            yield Fault(name[:100].replace("\0", "�"), f"is not a known field; known are {', '.join(known)}")


def _sentence(error: ValueError) -> str:
    text = str(error).replace("`", "")
    return text[0].lower() + text[1:]


def _holds_nul(value: object) -> bool:
    """PostgreSQL can't store a NUL in text."""
    match value:
        case str():
            return "\0" in value
        case list():
            return any(map(_holds_nul, value))
        case dict():
            return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
        case _:
            return False
