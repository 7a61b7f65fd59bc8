"""Another tenant's things answer exactly as things that do not exist, for every route that takes an id."""

import re
from typing import Any

import httpx
import pytest

from mockpay.app import create_litestar
from mockpay.context import Context
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration
from tests.integration.conftest import ADMIN_KEY
from tests.support.gateway import Gateway, bearer

UNKNOWN_ID = "01a208df-c0d9-756f-80ef-891a5ca24f1b"
BODIES: dict[str, Any] = {
    "/simulate": {"status": "success"},
    "/refund": {"refund_amount": 5},
    "{payment_id}": {"description": "mine now"},
    "{user_id}": {"rate_limit_tier": "unlimited"},
    "{rule_id}": {"is_active": False},
}


def routes_with_an_id() -> list[tuple[str, str]]:
    """Every one of the document, so that a new route can't be forgotten here."""
    document = create_litestar(Settings(), "postgresql://nowhere/", with_worker=False).openapi_schema.to_schema()
    return [
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if re.search(r"\{\w+\}", path)
    ]


def body_for(path: str) -> Any:
    return next((body for ending, body in BODIES.items() if path.endswith(ending)), None)


@pytest.fixture
async def theirs(gateway: Gateway, client: httpx.AsyncClient, credentials: tenants.Credentials) -> dict[str, str]:
    """Ids of one tenant, by the parameter that would name them, all in a state in which the route would work."""
    payment = await gateway.succeeded("k")
    gateway.receiver.answers = [410]
    await gateway.worker().run_due()
    pending = await gateway.create("pending")
    rule = {"fault": "reset", "probability": 0}
    fault = await client.post("/api/faults", json=rule, headers=bearer(credentials.api_key))
    async with gateway.context.database.connection() as connection:
        query = "SELECT id::text FROM webhook_deliveries WHERE payment_id = $1"
        delivery_id: str = await connection.fetchval(query, payment.id)
    return {
        "payment_id": str(payment.id), "pending": str(pending.id), "delivery_id": delivery_id, "job_id": delivery_id,
        "fault_id": fault.json()["id"], "user_id": str(gateway.tenant.id), "rule_id": "00000000-0000-7000-8000-000000000001",
    }  # fmt: skip


def test_there_are_such_routes() -> None:
    assert len(routes_with_an_id()) >= 11


@pytest.mark.parametrize(("method", "path"), routes_with_an_id())
async def test_a_foreign_id_is_as_absent_as_an_unknown_one(
    client: httpx.AsyncClient, context: Context, theirs: dict[str, str], superuser: Any, method: str, path: str
) -> None:
    other = await tenants.register(context, Registration("Other", Email("other@example.com")))
    headers = bearer(other.api_key) | {"X-Request-Id": "same", "Idempotency-Key": "k"}
    [parameter] = re.findall(r"\{(\w+)\}", path)
    foreign_id = theirs["pending" if path.endswith("/simulate") else parameter]
    tables = (
        "payments",
        "audit_log",
        "webhook_deliveries",
        "fraud_rules",
        "tenants",
        "idempotency_keys",
        "fault_rules",
    )
    before = [await superuser.fetch(f"SELECT * FROM {table}") for table in tables]
    answers = []
    for id_ in (foreign_id, UNKNOWN_ID):
        url = path.replace(f"{{{parameter}}}", id_)
        answers.append(await client.request(method, url, json=body_for(path), headers=headers))
    foreign, unknown = answers
    assert foreign.status_code == (403 if "/admin/" in path else 404)
    assert foreign.content == unknown.content
    assert foreign.headers == unknown.headers
    assert [await superuser.fetch(f"SELECT * FROM {table}") for table in tables] == before


@pytest.mark.parametrize(("method", "path"), routes_with_an_id())
async def test_with_the_right_key_the_same_request_works(
    client: httpx.AsyncClient, credentials: tenants.Credentials, theirs: dict[str, str], method: str, path: str
) -> None:
    """Or the test above would show nothing."""
    key = ADMIN_KEY if "/admin/" in path else credentials.api_key
    [parameter] = re.findall(r"\{(\w+)\}", path)
    id_ = theirs["pending" if path.endswith("/simulate") else parameter]
    response = await client.request(
        method, path.replace(f"{{{parameter}}}", id_), json=body_for(path), headers=bearer(key)
    )
    assert response.is_success, response.text


LISTS = [
    "/api/payments", "/api/payments?status=success", "/api/payments?status=pending", "/api/payments?currency=USD",
    "/api/payments?status=pending&currency=USD", "/api/payments?created_from=2020-01-01T00:00:00Z&created_to=2040-01-01T00:00:00Z",
    "/api/webhooks/deliveries", "/api/webhooks/deliveries?status=dead",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
async def test_lists_hold_ones_own_only(
    client: httpx.AsyncClient, context: Context, credentials: tenants.Credentials, theirs: dict[str, str], path: str
) -> None:
    assert theirs
    assert (await client.get(path, headers=bearer(credentials.api_key))).json()["total"] > 0, "there is something"
    other = await tenants.register(context, Registration("Other", Email("other@example.com")))
    response = await client.get(path, headers=bearer(other.api_key))
    assert response.json() == {"data": [], "total": 0, "has_more": False, "next_cursor": None}


def test_every_filter_of_a_list_is_tried() -> None:
    """A new one is another statement, which must name the tenant too."""
    document = create_litestar(Settings(), "postgresql://nowhere/", with_worker=False).openapi_schema.to_schema()
    for path in ("/api/payments", "/api/webhooks/deliveries"):
        names = {each["name"] for each in document["paths"][path]["get"]["parameters"]} - {"limit", "cursor"}
        tried = {name for each in LISTS if each.partition("?")[0] == path for name in re.findall(r"[?&](\w+)=", each)}
        assert tried >= names, path
