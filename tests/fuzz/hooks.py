"""What schemathesis is told of MockPay: who it is, and the few rules that a JSON Schema can't state."""

import json
import os
import re
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import schemathesis
from hypothesis import strategies as st

from mockpay.app import create_litestar
from mockpay.cursor import Cursor
from mockpay.exact_json import encode
from mockpay.payments.declines import FailureCode
from mockpay.scenarios.requests import FILE_LENGTH_MAX
from mockpay.settings import Settings
from mockpay.types import CURRENCY_EXPONENTS, MAX_MAJOR_UNITS, parse_uuid
from mockpay.web.document import complete
from mockpay.web.openapi import DECIMAL_PATTERN

OUTCOMES = os.environ.get("FUZZ_OUTCOMES")
"""A file for a line of each request: method, path, status."""
key = os.environ.get("FUZZ_KEY", "")
"""Of a tenant, or the administrator's. A tenant's key is rotated on the way; the new one is used from then on."""


@schemathesis.auth(refresh_interval=None)
class Bearer:
    def get(self, case: schemathesis.Case[Any], context: schemathesis.AuthContext) -> str:
        return key

    def set(self, case: schemathesis.Case[Any], data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], arguments: dict[str, Any]) -> None:
    if case.path == "/api/scenarios/run":
        case.body = calm(case.body)
    elif isinstance(case.body, dict):
        case.body = fitting(case.body)
        if case.method == "PATCH" and isinstance(case.body.get("window_secs"), (int, float)):
            del case.body["window_secs"]  # whether it has one depends on the rule
    if case.query and re.fullmatch("[A-Za-z0-9_-]{43}", str(case.query.get("cursor"))):
        cursor = Cursor(datetime(2026, 1, 31, tzinfo=UTC), UUID(int=1)).encode(LISTS[case.path])
        case.query = {**case.query, "cursor": cursor}


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
) -> None:
    global key  # noqa: PLW0603 - hooks have no other place to keep it
    if case.path == "/api/auth/rotate-key" and response.status_code == 200:
        key = response.json()["api_key"]
    if OUTCOMES:
        with Path(OUTCOMES).open("a") as file:
            file.write(f"{case.method} {case.path} {response.status_code}\n")


def calm(body: Any) -> Any:
    """A valid run is of a scenario whose faults never happen, or they would happen to what follows."""
    if isinstance(body, str):
        return CALM if len(body) <= FILE_LENGTH_MAX else body
    return {"file": CALM} if isinstance(body, dict) and RUN_SCENARIO.is_valid(body) else body


def fitting(body: dict[str, Any]) -> dict[str, Any]:
    """With amounts of as many decimals as their currency has, rules whose fields agree, and no tenant made up."""
    changes: dict[str, Any] = {}
    for name in ("amount", "refund_amount", "threshold"):
        value = body.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_MAJOR_UNITS:
            changes[name] = float(_rounded(Decimal(value), body.get("currency")))
        elif isinstance(value, str) and re.match(DECIMAL_PATTERN, value):
            changes[name] = f"{_rounded(Decimal(value), body.get('currency')):f}"
    if "rule_type" in body and is_uuid(body.get("tenant_id")):
        changes["tenant_id"] = None
    if body.get("rule_type") == "velocity" and body.get("window_secs") is None:
        changes["window_secs"] = 60
    if body.get("rule_type") == "velocity" and isinstance(changes.get("threshold"), float):
        changes["threshold"] = int(changes["threshold"])  # a number of payments
    if body.get("rule_type") == "amount_limit" and isinstance(body.get("window_secs"), (int, float)):
        changes["window_secs"] = None
    if "outcome" in body and OUTCOME.is_valid(body["outcome"]):
        changes["outcome"] = {"status": "success", "after_seconds": 86_400}  # whose fields agree
    if body.get("status") == "success" and body.get("failure_code") in list(FailureCode):
        changes["status"] = "failed"
    if "fault" in body and CREATE_FAULT.is_valid(body):
        return {"fault": "reset", "operation": body.get("operation"), "probability": 0}  # or it would fail what follows
    if "refund_amount" in changes:
        changes["refund_amount"] = 1  # no payment is smaller
    return body | changes


def validator(name: str) -> jsonschema_rs.Validator:
    """Of a schema of the document."""
    app = create_litestar(Settings(), "postgresql://nowhere/", with_worker=False)
    document = json.loads(encode(complete(app.openapi_schema.to_schema())))
    schema = document["components"]["schemas"][name]
    return jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]})


OUTCOME, CREATE_FAULT, RUN_SCENARIO = validator("Outcome"), validator("CreateFault"), validator("RunScenario")
CALM = 'name = "calm"\nteaches = "nothing"\n[[faults]]\nfault = "reset"\nprobability = 0\n'


def is_uuid(value: Any) -> bool:
    try:
        return bool(parse_uuid(value))
    except (ValueError, TypeError):
        return False


LISTS = {
    "/api/payments": "payments",
    "/api/webhooks/deliveries": "deliveries",
    "/api/timeline": "timeline",
    "/api/payments/{payment_id}/timeline": "timeline",
    "/api/admin/dlq": "dead_letters",
    "/api/admin/users": "users",
    "/api/admin/fraud-rules": "fraud_rules",
}


def _rounded(value: Decimal, currency: Any) -> Decimal:
    step = Decimal(1).scaleb(-CURRENCY_EXPONENTS.get(currency, 0) if isinstance(currency, str) else 0)
    return max(value.quantize(step, ROUND_DOWN), Decimal(1))


# Formats are loose where we are strict: an address must have a domain that could exist, a URL must be http.
schemathesis.openapi.format("email", st.from_regex(r"[a-z]{1,20}@[a-z]{1,20}\.(com|org|net)", fullmatch=True))
schemathesis.openapi.format(
    "uri", st.from_regex(r"https?://[a-z]{1,20}\.example(:[1-9][0-9]{0,3})?/[a-z]{0,9}", fullmatch=True)
)


@schemathesis.serializer("application/toml")
def toml(context: schemathesis.SerializationContext, value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)
