"""What the OpenAPI document needs to know of our own types, and how a strict body is bound to a route."""

from collections.abc import Generator
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, Reference, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from mockpay.errors import ApiError, Fault, InternalError, InvalidRequest, UnsupportedMediaType
from mockpay.types import CURRENCY_EXPONENTS, MAX_MAJOR_UNITS, Amount, Currency
from mockpay.web.body import decode_body, is_json

# More than nothing, at most ten million, no more decimals than any currency has.
DECIMAL_PATTERN = r"^(?=.*[1-9])0{0,9}([0-9]{1,7}(\.[0-9]{1,4}0{0,9})?|10000000(\.0{1,9})?)$"


class ErrorBody(msgspec.Struct, frozen=True):
    """The shape of every error."""

    error: str
    code: str
    request_id: str
    details: list[Fault] | msgspec.UnsetType = msgspec.UNSET


class StrictBody(AbstractDTO[Any]):
    """`dto=StrictBody.of(Model)` makes Litestar decode `data` with our strict decoder."""

    model_type: ClassVar[type[msgspec.Struct]]  # type: ignore[misc]  # it is an instance variable above

    @classmethod
    def of(cls, model: type[msgspec.Struct]) -> type["StrictBody"]:
        return type(f"StrictBody[{model.__name__}]", (cls,), {"model_type": model, "config": None})

    def decode_bytes(self, value: bytes) -> Any:
        if not is_json(self.asgi_connection.headers.get("content-type")):
            raise UnsupportedMediaType
        return decode_body(value, self.model_type)

    def decode_builtins(self, value: dict[str, Any]) -> Any:
        """Litestar calls this for form bodies, which it has parsed already."""
        raise UnsupportedMediaType

    @classmethod
    def create_for_field_definition(cls, *_args: Any, **_kwargs: Any) -> None:
        """Nothing to generate: the model is the transfer type."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False


class OwnTypes(OpenAPISchemaPlugin):
    """Schemas of field types that are neither Structs nor built in."""

    SCHEMAS: ClassVar[dict[type, Schema]] = {
        Amount: Schema(
            description="Major units, exact, with no more decimals than the currency has.",
            one_of=[
                Schema(type=OpenAPIType.NUMBER, exclusive_minimum=0, maximum=MAX_MAJOR_UNITS),
                Schema(type=OpenAPIType.STRING, pattern=DECIMAL_PATTERN),
            ],
        ),
        Decimal: Schema(
            type=OpenAPIType.NUMBER, description="Exact: read it as a decimal, not as binary floating point."
        ),
        Currency: Schema(
            type=OpenAPIType.STRING, description="ISO 4217; lower case is welcome too.", enum=sorted(CURRENCY_EXPONENTS)
        ),
    }

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return isinstance(value, type) and (value in OwnTypes.SCHEMAS or hasattr(value, "json_schema"))

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        annotation = field_definition.annotation
        return self.SCHEMAS.get(annotation) or _schema(annotation.json_schema)


def _schema(described: dict[str, Any]) -> Schema:
    """Of plain data, since pure modules know nothing of the framework."""

    def convert(value: Any) -> Any:
        match value:
            case dict():
                return _schema(value)
            case [dict(), *_]:
                return [_schema(each) for each in value]
            case _:
                return value

    return Schema(**{name: convert(value) for name, value in described.items()})


def _example(kind: type[ApiError]) -> dict[str, Any]:
    shown: dict[str, Any] = {"error": kind.summary, "code": kind.code, "request_id": "03f316129c4221225150545fdd2075cc"}
    if kind is InvalidRequest:
        fault = {"field": "amount", "message": "must be greater than 0"}
        shown |= {"error": "The request is invalid: amount: must be greater than 0", "details": [fault]}
    return shown


def errors(*kinds: type[ApiError]) -> dict[int, ResponseSpec]:
    """The error answers of a route, by status, for its `responses`."""
    by_status: dict[int, list[type[ApiError]]] = {InternalError.status: [InternalError]}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: ResponseSpec(
            ErrorBody,
            generate_examples=False,
            description="; ".join(f"`{kind.code}`: {kind.summary}" for kind in same),
            examples=[Example(id=kind.code, summary=kind.summary, value=_example(kind)) for kind in same],
        )
        for status, same in by_status.items()
    }
