"""The contract as a table: each row a route, who may call it, what it answers, with which fields and headers.

A row of the contract without a row here, or a field, fails a test; what stands behind a row has tests of its own.
"""

import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from mockpay.payments.model import TriggeredBy
from mockpay.tenants.service import Credentials
from tests.integration.conftest import ADMIN_KEY
from tests.support.gateway import Gateway, bearer

NONE, TENANT, ADMIN = "none", "tenant", "admin"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
SECRET = re.compile(r"[0-9a-f]{64}")
UNKNOWN_ID = "01a208df-c0d9-756f-80ef-891a5ca24f1b"

PAYMENT = (
    "id payment_id amount currency status webhook_url description metadata idempotency_key failure_code "
    "failure_message refund_amount refunded_at refund_reason flag_reason flag_rule created_at updated_at"
)
CREDENTIALS = "tenant_id name email api_key webhook_secret webhook_url rate_limit_tier created_at"
DELIVERY = (
    "id payment_id event_id event webhook_url status attempts max_attempts next_attempt_at last_error created_at "
    "finished_at fault fault_rule attempt_log"
)
RULE = "id name rule_type threshold window_secs currency tenant_id action is_active created_at"
FAULT = "id target operation event fault times every probability seed matched fired created_at"
USER = "id name email rate_limit_tier created_at payments"
PAGE = "data total has_more next_cursor"


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    auth: str
    status: int
    fields: str
    body: Any = None
    headers: str = ""
    inner: str = ""  # the fields of the first row of the answer's list

    def __str__(self) -> str:
        return f"{self.method} {self.path} as {self.auth}"


# fmt: off
CONTRACT = [
    # Tenants
    Row("POST", "/api/auth/register", NONE, 201, "message tenant_id name email api_key webhook_secret created_at instructions",
        body={"name": "New", "email": "new@example.com"}),
    Row("GET", "/api/auth/me", TENANT, 200, CREDENTIALS),
    Row("PATCH", "/api/auth/me", TENANT, 200, CREDENTIALS, body={"webhook_url": "http://127.0.0.1:9/"}),
    Row("POST", "/api/auth/rotate-key", TENANT, 200, "message tenant_id api_key instructions"),
    Row("POST", "/api/auth/rotate-webhook-secret", TENANT, 200,
        "message tenant_id webhook_secret previous_expires_at instructions"),
    # Payments
    Row("POST", "/api/payments", TENANT, 201, PAYMENT, body={"amount": 5000, "currency": "inr"}, headers="Idempotency-Key"),
    Row("GET", "/api/test-values", NONE, 200, "failure_codes payment_methods amounts"),
    Row("GET", "/api/payments", TENANT, 200, PAGE, inner=PAYMENT),
    Row("GET", "/api/payments/{pending}", TENANT, 200, PAYMENT),
    Row("PATCH", "/api/payments/{pending}", TENANT, 200, PAYMENT,
        body={"webhook_url": None, "metadata": {"a": 1}, "description": "d"}),
    Row("POST", "/api/payments/{pending}/simulate", TENANT, 200, PAYMENT, body={"status": "success"}),
    Row("POST", "/api/payments/{pending}/simulate", TENANT, 200, PAYMENT, body={"status": "failed"}),
    Row("POST", "/api/payments/{success}/refund", TENANT, 200,
        "payment_id status original_amount refund_amount refunded_at refund_reason",
        body={"refund_amount": 1, "reason": "r"}),
    Row("GET", "/api/payments/{success}/audit", TENANT, 200, "payment_id total_events history intact",
        inner="id old_status new_status triggered_by metadata created_at entry_hash prev_hash"),
    Row("GET", "/api/payments/{success}/deliveries", TENANT, 200, "payment_id total deliveries", inner=DELIVERY),
    # Webhooks
    Row("GET", "/api/webhooks/deliveries", TENANT, 200, PAGE, inner=DELIVERY),
    Row("POST", "/api/webhooks/deliveries/{dead}/replay", TENANT, 202, DELIVERY),
    Row("POST", "/api/webhooks/deliveries/{delivered}/replay", TENANT, 202, DELIVERY),
    # Faults
    Row("POST", "/api/faults", TENANT, 201, FAULT, body={"fault": "lost_response", "operation": "create", "times": 2}),
    Row("GET", "/api/faults", TENANT, 200, "total faults"),
    Row("DELETE", "/api/faults", TENANT, 204, ""),
    # Scenarios
    Row("GET", "/api/scenarios", TENANT, 200, "total scenarios", inner="name teaches file"),
    Row("POST", "/api/scenarios/run", TENANT, 201, "name teaches seed faults", body={"name": "webhook_storm"}, inner=FAULT),
    # The timeline
    Row("GET", "/api/timeline", TENANT, 200, PAGE),
    Row("GET", "/api/payments/{success}/timeline", TENANT, 200, PAGE),
    # Admin
    Row("GET", "/api/admin/dlq", ADMIN, 200, "total message failed_jobs next_cursor",
        inner="job_id payment_id tenant_id webhook_url event attempts max_attempts last_error created_at failed_at payload"),
    Row("POST", "/api/admin/dlq/{dead}/replay", ADMIN, 202, "message replayed skipped"),
    Row("POST", "/api/admin/dlq/replay", ADMIN, 202, "message replayed skipped"),
    Row("GET", "/api/admin/users", ADMIN, 200, "total users next_cursor", inner=USER),
    Row("PATCH", "/api/admin/users/{tenant}", ADMIN, 200, USER, body={"rate_limit_tier": "high"}),
    Row("GET", "/api/admin/fraud-rules", ADMIN, 200, "total rules next_cursor", inner=RULE),
    Row("POST", "/api/admin/fraud-rules", ADMIN, 201, RULE,
        body={"name": "n", "rule_type": "velocity", "threshold": 5, "window_secs": 60}),
    Row("PATCH", "/api/admin/fraud-rules/{rule}", ADMIN, 200, RULE,
        body={"is_active": True, "threshold": 6, "window_secs": 61, "name": "m"}),
    Row("PATCH", "/api/admin/fraud-rules/{rule}", ADMIN, 200, RULE),
    Row("DELETE", "/api/admin/fraud-rules/{rule}", ADMIN, 204, ""),
    Row("GET", "/api/admin/metrics", ADMIN, 200, "generated_at payments webhooks fraud audit system"),
    # Operations
    Row("GET", "/", NONE, 200, "name version docs openapi register health ready metrics"),
    Row("GET", "/health", NONE, 200, "status version"),
    Row("GET", "/ready", NONE, 200, "status"),
]

METRICS = {
    "payments": "total by_status last_24_hours average_amount total_volume success_rate_pct volume_by_currency volume_note",
    "webhooks": "total_attempts successful failed delivery_rate_pct average_retries dlq_depth queue_depth oldest_pending_seconds",
    "fraud": "total_flagged flagged_last_24h flag_rate_pct",
    "audit": "total_transitions payments_with_history transitions_last_24h",
    "system": "version database job_queue environment uptime_seconds",
}

STATUSES = [
    # status, code, method, path, auth, body, further headers
    (400, "invalid_request", "POST", "/api/payments", TENANT, {}, {"Idempotency-Key": "k"}),
    (400, "invalid_request", "GET", "/api/payments/x", TENANT, None, {}),
    (400, "invalid_request", "GET", "/api/payments?cursor=AQAGSa3USTAAAaIJ", TENANT, None, {}),
    (400, "malformed_json", "POST", "/api/payments", TENANT, b"{", {"Idempotency-Key": "k"}),
    (400, "idempotency_key_missing", "POST", "/api/payments", TENANT, {"amount": 5, "currency": "USD"}, {}),
    (401, "unauthorized", "GET", "/api/auth/me", NONE, None, {}),
    (401, "unauthorized", "GET", "/api/auth/me", NONE, None, bearer("ab" * 32)),
    (401, "unauthorized", "GET", "/api/admin/users", NONE, None, {}),
    (403, "forbidden", "GET", "/api/admin/users", TENANT, None, {}),
    (404, "not_found", "GET", f"/api/payments/{UNKNOWN_ID}", TENANT, None, {}),
    (404, "not_found", "POST", f"/api/webhooks/deliveries/{UNKNOWN_ID}/replay", TENANT, None, {}),
    (404, "not_found", "POST", f"/api/admin/dlq/{UNKNOWN_ID}/replay", ADMIN, None, {}),
    (404, "not_found", "PATCH", f"/api/admin/users/{UNKNOWN_ID}", ADMIN, {"rate_limit_tier": "high"}, {}),
    (404, "not_found", "PATCH", f"/api/admin/fraud-rules/{UNKNOWN_ID}", ADMIN, {}, {}),
    (404, "not_found", "DELETE", f"/api/admin/fraud-rules/{UNKNOWN_ID}", ADMIN, None, {}),
    (404, "route_not_found", "GET", "/api/payment", TENANT, None, {}),
    (404, "route_not_found", "GET", "/docs/nothing", NONE, None, {}),
    (405, "method_not_allowed", "DELETE", "/api/payments", TENANT, None, {}),
    (409, "invalid_transition", "POST", "/api/payments/{success}/simulate", TENANT, {"status": "failed"}, {}),
    (409, "email_taken", "POST", "/api/auth/register", NONE, {"name": "T", "email": "TEST@example.com"}, {}),
    (409, "not_replayable", "POST", "/api/webhooks/deliveries/{waiting}/replay", TENANT, None, {}),
    (409, "not_replayable", "POST", "/api/admin/dlq/{delivered}/replay", ADMIN, None, {}),
    (413, "body_too_large", "POST", "/api/payments", TENANT, b"x" * 262_145, {"Idempotency-Key": "k"}),
    (415, "unsupported_media_type", "POST", "/api/payments", TENANT, b"{}", {"Idempotency-Key": "k", "Content-Type": "text/plain"}),
    (422, "idempotency_key_reused", "POST", "/api/payments", TENANT, {"amount": 6, "currency": "USD"}, {"Idempotency-Key": "pending"}),
]
# fmt: on


@pytest.fixture
async def ids(gateway: Gateway) -> dict[str, str]:
    """One of everything, by the name that stands for its id in the tables above."""
    pending = await gateway.create("pending")
    found = {
        "tenant": str(gateway.tenant.id),
        "rule": "00000000-0000-7000-8000-000000000001",
        "pending": str(pending.id),
    }
    payments = {}
    for name, answers in (("dead", [410]), ("delivered", [200]), ("waiting", None)):
        payments[name] = await gateway.succeeded(name)
        gateway.receiver.answers = answers or []
        if answers:
            await gateway.worker().run_due()
    found["success"] = str(payments["dead"].id)
    async with gateway.context.database.connection() as connection:
        for name, payment in payments.items():
            query = "SELECT id::text FROM webhook_deliveries WHERE payment_id = $1"
            found[name] = await connection.fetchval(query, payment.id)
    return found


def credentials_for(auth: str, credentials: Credentials) -> dict[str, str]:
    return {NONE: {}, TENANT: bearer(credentials.api_key), ADMIN: bearer(ADMIN_KEY)}[auth]


def check_values(name: str, value: Any) -> None:
    """A name means the same everywhere."""
    match value:
        case dict():
            for key, item in value.items():
                check_values(key, item)
        case list():
            for item in value:
                check_values(name, item)
        case str() if name.endswith("_at"):
            assert TIME.fullmatch(value), name
        case str() if name in {"id", "payment_id", "event_id", "job_id", "tenant_id"}:
            assert UUID.fullmatch(value), name
        case str() if name in {"api_key", "webhook_secret", "entry_hash", "prev_hash"}:
            assert SECRET.fullmatch(value), name


def check_common(response: httpx.Response) -> None:
    assert response.headers["X-Request-Id"]
    if response.request.url.path.startswith("/api/"):
        for name in ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"):
            assert response.headers[name].isdigit(), name


@pytest.mark.parametrize("row", CONTRACT, ids=str)
async def test_each_row(row: Row, client: httpx.AsyncClient, credentials: Credentials, ids: dict[str, str]) -> None:
    headers = credentials_for(row.auth, credentials) | ({row.headers: "key"} if row.headers else {})
    response = await client.request(row.method, row.path.format(**ids), json=row.body, headers=headers)
    assert response.status_code == row.status, response.text
    check_common(response)
    if row.status == 204:
        assert response.content == b""
        return
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert set(answer) == set(row.fields.split())
    check_values("", answer)
    if row.inner:
        rows, *_ = [value for value in answer.values() if isinstance(value, list)]
        assert set(rows[0]) == set(row.inner.split())


@pytest.mark.parametrize(("status", "code", "method", "path", "auth", "body", "headers"), STATUSES)
async def test_each_status(
    client: httpx.AsyncClient, credentials: Credentials, ids: dict[str, str], status: int, code: str, method: str,
    path: str, auth: str, body: Any, headers: dict[str, str],
) -> None:  # fmt: skip
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    json = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
    response = await client.request(
        method, path.format(**ids), headers=credentials_for(auth, credentials) | json | headers, **content
    )
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    check_common(response)
    error = response.json()
    assert set(error) == {"error", "code", "request_id"} | ({"details"} if code == "invalid_request" else set())
    assert error["request_id"] == response.headers["X-Request-Id"]
    for fault in error.get("details", []):
        assert set(fault) == {"field", "message"}
    assert ("Allow" in response.headers) == (status == 405)
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_the_snapshot_of_metrics(client: httpx.AsyncClient) -> None:
    metrics = (await client.get("/api/admin/metrics", headers=bearer(ADMIN_KEY))).json()
    for part, fields in METRICS.items():
        assert set(metrics[part]) == set(fields.split())
    statuses = "pending success failed flagged refunded partially_refunded"
    assert set(metrics["payments"]["by_status"]) == set(statuses.split())


async def test_the_openapi_document_has_every_row(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    documented = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path)): set(operation["responses"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    for row in CONTRACT:
        assert str(row.status) in documented[row.method, re.sub(r"\{\w+\}", "{}", row.path)], row
    rows = {(row.method, re.sub(r"\{\w+\}", "{}", row.path)) for row in CONTRACT}
    assert set(documented) - rows == {
        ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/openapi.json"), ("DELETE", "/api/faults/{}"),
    }  # fmt: skip
    for status, _, method, path, *_ in STATUSES:
        template = re.sub(r"\{\w+\}|" + UNKNOWN_ID + "|/x$", lambda at: "/{}" if at[0] == "/x" else "{}", path)
        key = (method, template.partition("?")[0])
        assert str(status) in documented.get(key, {"404", "405"}), (status, key)


def test_who_can_trigger_a_change() -> None:
    named = "create_api simulate_api refund_api fraud_engine scenario admin"
    assert {trigger.value for trigger in TriggeredBy} == set(named.split())
