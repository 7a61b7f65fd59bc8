"""What the OpenAPI document says of every route, for tests that no new route or field may slip past."""

import functools
import json
from dataclasses import dataclass
from typing import Any

from mockpay.app import create_litestar
from mockpay.exact_json import encode
from mockpay.settings import Settings
from mockpay.web.document import complete

Schema = dict[str, Any]
METHODS_WITH_BODIES = ("POST", "PATCH")


@dataclass(frozen=True)
class Operation:
    """`fields` are the schemas of its JSON body by name, `query` the names of its parameters."""

    method: str
    path: str
    name: str
    keys: tuple[str, ...]
    query: tuple[str, ...]
    fields: dict[str, Schema]
    minimal: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def is_admins(self) -> bool:
        return self.path.startswith("/api/admin/")

    @property
    def url(self) -> str:
        """With ids that nothing has."""
        return at(self.path, "01a208df-c0d9-756f-80ef-891a5ca24f1b")


def at(path: str, id_: str) -> str:
    """The path of one thing: none has more than one id."""
    before, brace, rest = path.partition("{")
    return before + id_ + rest.partition("}")[2] if brace else path


@functools.cache
def document() -> Schema:
    app = create_litestar(Settings(), "postgresql://nowhere/", with_worker=False)
    whole: Schema = json.loads(encode(complete(app.openapi_schema.to_schema())))
    return whole


@functools.cache
def operations() -> list[Operation]:
    return [
        _operation(method.upper(), path, described)
        for path, item in document()["paths"].items()
        for method, described in item.items()
    ]


def with_body() -> list[Operation]:
    return [each for each in operations() if each.fields]


def resolved(schema: Schema) -> Schema:
    """Of a reference, and of a field that may also be null, what it is else."""
    if "$ref" in schema:
        return resolved(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    options = [each for each in schema.get("oneOf", []) if each.get("type") != "null"]
    return resolved(options[0]) if len(options) == 1 else schema


def names_of_all_fields() -> set[str]:
    """Whatever the document calls something, of bodies and of answers."""
    return {name for schema in document()["components"]["schemas"].values() for name in schema.get("properties", {})}


def _operation(method: str, path: str, described: Schema) -> Operation:
    content = described.get("requestBody", {}).get("content", {}).get("application/json")
    body = resolved(content["schema"]) if content else {}
    example = body.get("examples", [{}])[0]
    return Operation(
        method=method,
        path=path,
        name=described["operationId"],
        keys=tuple(name for each in described.get("security", []) for name in each),
        query=tuple(each["name"] for each in described.get("parameters", []) if each["in"] == "query"),
        fields={name: resolved(schema) for name, schema in body.get("properties", {}).items()},
        minimal={name: example[name] for name in body.get("required", [])},
    )
