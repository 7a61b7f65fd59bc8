"""Complete the OpenAPI document with what the framework can't know: headers, formats, examples. Pure.

A field's name means the same wherever it occurs, so formats and examples are told by name.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any, Final

from mockpay.web.examples import BY_FIELD, BY_SCHEMA

Json = dict[str, Any]

_UUID_NAME: Final = re.compile(r"(id|payment_id|tenant_id|delivery_id|event_id|job_id)")
_TIME_NAME: Final = re.compile(r".*_(at|from|to)")
_SECRET_NAME: Final = re.compile(r"api_key|webhook_secret|entry_hash|prev_hash")

_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_HEADERS: Final[Json] = {
    "X-Request-Id": {"description": "The request's id; also on the log lines.", "schema": _TEXT},
    "RateLimit-Limit": {"description": "Requests in a window of time.", "schema": _COUNT},
    "RateLimit-Remaining": {"description": "Those that are left in it.", "schema": _COUNT},
    "RateLimit-Reset": {"description": "Seconds until the next window.", "schema": _COUNT},
    "Retry-After": {"description": "Seconds to wait.", "schema": _COUNT},
    "WWW-Authenticate": {"description": "Bearer", "schema": _TEXT},
    "Idempotent-Replayed": {
        "description": "true, if this is the stored answer of an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_DESCRIPTIONS: Final = {"200": "Done.", "201": "Created.", "202": "Queued.", "204": "Done; there is no body."}
_OF_A_PAYMENT: Final = (
    "get_payment", "change_payment", "simulate_payment", "refund_payment", "audit_payment", "payment_deliveries",
    "payment_timeline",
)  # fmt: skip
_OF_A_RULE: Final = ("change_rule", "delete_rule")
# What can be asked next: operation and status, where its answer holds the id, the parameter, and what takes it.
_LINKS: Final = (
    ("create_payment", "201", "/id", "payment_id", _OF_A_PAYMENT),
    ("list_payments", "200", "/data/0/id", "payment_id", _OF_A_PAYMENT),
    ("list_deliveries", "200", "/data/0/id", "delivery_id", ("replay_delivery",)),
    ("list_dead_letters", "200", "/failed_jobs/0/job_id", "job_id", ("replay_dead_letter",)),
    ("list_users", "200", "/users/0/id", "user_id", ("change_user",)),
    ("list_rules", "200", "/rules/0/id", "rule_id", _OF_A_RULE),
    ("create_rule", "201", "/id", "rule_id", _OF_A_RULE),
    ("create_fault", "201", "/id", "fault_id", ("delete_fault",)),
    ("list_faults", "200", "/faults/0/id", "fault_id", ("delete_fault",)),
)
# A text that may also be sent as it is: operation, media type, and the model and field that hold it in JSON. The
# framework knows one media type for each route.
_TEXTS: Final = (("run_scenario", "application/toml", "RunScenario", "file"),)

# What is a page too, for who prefers that: the operation.
_PAGES: Final = ("places",)


def complete(document: Json) -> Json:
    """A new document; `document` is left as it is."""
    whole = copy.deepcopy(document)
    components: Json = whole["components"]
    components |= {"headers": copy.deepcopy(_HEADERS), "examples": {}}
    schemas: Json = components["schemas"]
    for path, item in whole["paths"].items():
        for operation in item.values():
            _complete_operation(path, operation, components)
    for schema in schemas.values():
        for name, described in schema.get("properties", {}).items():
            _add_format(name, described)
            if name == "seed":
                described["minimum"] = 0  # which the framework leaves out, being zero
    for name, schema in schemas.items():
        if schema.get("type") == "object":
            schema["examples"] = [BY_SCHEMA.get(name) or _example(schema, schemas)]
    return whole


def _complete_operation(path: str, operation: Json, components: Json) -> None:
    keys = [parameter for parameter in operation.get("parameters", []) if parameter["name"] == "Idempotency-Key"]
    for key in keys:
        # The framework must not require it: its own refusal would not be idempotency_key_missing.
        key["required"] = operation["operationId"] == "create_payment"
    if operation["operationId"] in _PAGES:
        operation["responses"]["200"]["content"]["text/html"] = {"schema": dict(_TEXT)}
    for status, response in operation["responses"].items():
        response["description"] = _DESCRIPTIONS.get(status, response["description"])
        names = _header_names(path, status, may_be_replayed=bool(keys))
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        for content in response.get("content", {}).values():
            _share_examples(content, components["examples"])
    for name, status, place, parameter, targets in _LINKS:
        if operation["operationId"] == name:
            operation["responses"][status]["links"] = {
                target: {"operationId": target, "parameters": {parameter: f"$response.body#{place}"}}
                for target in targets
            }
    if "requestBody" in operation:
        _complete_body(operation["requestBody"], components["schemas"])
        for name, media_type, model, field in _TEXTS:
            if operation["operationId"] == name:
                described = components["schemas"][model]["properties"][field]
                content = {"schema": _text_of(described), "example": BY_FIELD[field]}
                operation["requestBody"]["content"][media_type] = content


def _text_of(described: Json) -> Json:
    """Where a field may be null as well, what it is else."""
    options: list[Json] = described.get("oneOf", [described])
    return copy.deepcopy(next(option for option in options if option.get("type") == "string"))


def _share_examples(content: Json, shared: Json) -> None:
    """The same few errors are answers of every route: once is enough."""
    if "examples" in content:
        shared |= content["examples"]
        content["examples"] = {name: {"$ref": f"#/components/examples/{name}"} for name in content["examples"]}


def _header_names(path: str, status: str, *, may_be_replayed: bool) -> Iterator[str]:
    yield "X-Request-Id"
    if path.startswith("/api/"):
        yield from ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
    if status in ("429", "503"):
        yield "Retry-After"
    if status == "401":
        yield "WWW-Authenticate"
    if may_be_replayed and status.startswith("2"):
        yield "Idempotent-Replayed"


def _complete_body(body: Json, schemas: Json) -> None:
    content = body["content"]["application/json"]
    options = content["schema"].get("oneOf")
    if options:  # the model, or nothing: an optional body is left out, and never null
        content["schema"] = options[0]
        body["required"] = False
    _close(content["schema"], schemas)


def _close(described: Json, schemas: Json) -> None:
    """Unknown fields of a request are refused. Answers say no such thing, so that a field can be added to them."""
    if "$ref" in described:
        described = schemas[described["$ref"].rpartition("/")[2]]
    if "properties" in described:
        described["additionalProperties"] = False
    for inner in [*described.get("properties", {}).values(), *described.get("oneOf", [])]:
        _close(inner, schemas)


def _add_format(name: str, described: Json) -> None:
    for schema in (described, *described.get("oneOf", [])):
        if schema.get("type") != "string":
            continue
        if _UUID_NAME.fullmatch(name):
            schema["format"] = "uuid"
        elif _TIME_NAME.fullmatch(name):
            schema["format"] = "date-time"
        elif _SECRET_NAME.fullmatch(name):
            schema["pattern"] = "^[0-9a-f]{64}$"


def _example(schema: Json, schemas: Json, name: str = "") -> Any:
    if "$ref" in schema:
        target = schema["$ref"].rpartition("/")[2]
        return BY_SCHEMA.get(target) or _example(schemas[target], schemas, name)
    if "properties" in schema:
        return {field: _example(described, schemas, field) for field, described in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_example(schema["items"], schemas, name)]
    if name in BY_FIELD:
        return BY_FIELD[name]
    if "enum" in schema:
        return schema["enum"][0]
    options = [option for option in schema.get("oneOf", []) if "$ref" in option]
    if options:
        return _example(options[0], schemas, name)
    raise LookupError(f"no example for the field {name}; add one to web/examples.py")
