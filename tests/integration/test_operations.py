"""For whoever runs the server: Prometheus figures, CORS, the reference without the internet."""

import re
from typing import Any

import httpx
import jsonschema_rs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mockpay.payments.model import Fail
from mockpay.settings import Settings
from tests.support.gateway import Gateway

KEYLESS = {"/api/auth/register", "/api/test-values"}
ORIGIN = "https://shop.example"


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """By name and the labels' values, joined by spaces."""
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.mark.usefixtures("api_key")
async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    for id_ in ("01a208df-c0d9-756f-80ef-891a5ca24f1b", "01a208df-c0d9-756f-80ef-891a5ca24f1c"):
        await client.get(f"/api/payments/{id_}")
    await client.get("/nowhere")
    await client.request("BREW", "/api/payments")
    found = await samples(client)
    name = "mockpay_http_request_duration_seconds_count"
    assert found[name, "GET /api/payments/{payment_id} 404"] == 2
    assert found[name, "POST /api/auth/register 201"] == 1
    assert found[name, "GET unmatched 404"] == 1
    assert {labels for sample, labels in found if sample == name and labels.startswith("other")}
    buckets = {labels: value for (sample, labels), value in found.items() if sample.endswith("_bucket")}
    assert buckets["+Inf GET /api/payments/{payment_id} 404"] == 2


async def test_the_queue_and_the_pool(gateway: Gateway, client: httpx.AsyncClient) -> None:
    gateway.receiver.answers = [410]
    await gateway.succeeded("dead")
    await gateway.worker().run_due()
    await gateway.change(await gateway.create("waiting"), Fail())
    found = await samples(client)
    assert found["mockpay_webhook_queue_depth", ""] == 1
    assert found["mockpay_webhook_dead_letters", ""] == 1
    assert found["mockpay_webhook_oldest_pending_seconds", ""] > 0
    assert found["mockpay_database_up", ""] == 1
    assert found["mockpay_database_connections_limit", ""] == 16
    assert found["mockpay_database_connections", "in_use"] + found["mockpay_database_connections", "idle"] >= 1


async def test_attempts_are_counted_by_outcome(gateway: Gateway, superuser: Any) -> None:
    gateway.receiver.answers = [500, 200, 410]
    for key in ("retried", "dead"):
        await gateway.succeeded(key)
        for _ in range(2):
            await superuser.execute("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")
            await gateway.worker().run_due()
    text = gateway.context.telemetry.text([]).decode()
    for outcome in ("retry", "delivered", "dead"):
        assert f'mockpay_webhook_attempts_total{{outcome="{outcome}"}} 1.0' in text


async def test_without_the_database_the_process_still_tells_of_itself(
    client: httpx.AsyncClient, superuser: Any, database_name: str
) -> None:
    await superuser.execute("ALTER ROLE mockpay_application CONNECTION LIMIT 0")
    try:
        await superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'mockpay_application'",
            database_name,
        )
        found = await samples(client)
    finally:
        await superuser.execute("ALTER ROLE mockpay_application CONNECTION LIMIT -1")
    assert found["mockpay_database_up", ""] == 0
    assert ("mockpay_webhook_queue_depth", "") not in found


@pytest.mark.parametrize("settings", [Settings(cors_origins=f"{ORIGIN}, http://localhost:5173", rate_limit_standard=1)])
async def test_cors_lets_the_named_origins_in(client: httpx.AsyncClient) -> None:
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key,content-type",
    }
    allowed = await client.options("/api/payments", headers=preflight | {"Origin": ORIGIN})
    assert allowed.status_code == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "idempotency-key" in allowed.headers["Access-Control-Allow-Headers"]
    for origin in ("https://evil.example", f"{ORIGIN}.evil.example"):
        refused = await client.options("/api/payments", headers=preflight | {"Origin": origin})
        assert "Access-Control-Allow-Origin" not in refused.headers
    for status in (401, 429):
        answer = await client.get("/api/payments", headers={"Origin": ORIGIN})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)
        exposed = answer.headers["Access-Control-Expose-Headers"]
        assert {"RateLimit-Remaining", "Idempotent-Replayed", "X-Request-Id"} <= set(exposed.split(", "))


async def test_without_the_setting_there_is_no_cors(shared_client: httpx.AsyncClient) -> None:
    answer = await shared_client.get("/api/payments", headers={"Origin": ORIGIN})
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_reference_needs_no_internet(shared_client: httpx.AsyncClient) -> None:
    page = await shared_client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(loaded) == 2
    assert "//" not in page.text.replace("<!DOCTYPE", "").replace("*/", "")
    for path in loaded:
        asset = await shared_client.get(path)
        assert (asset.status_code, len(asset.content) > 10_000) == (200, True)
    assert (await shared_client.get("/docs/../settings.py")).json()["code"] == "route_not_found"


@pytest.mark.parametrize(("accept", "is_page"), [
    ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", True), ("text/html", True),
    ("*/*", False), ("application/json", False), (None, False), ("application/json, text/html;q=0.5", False),
    ("text/html;q=nonsense", None), (",;;=", None), ("x" * 5000, False), ("image/png", False),
])  # fmt: skip
async def test_the_root_says_where_things_are(
    shared_client: httpx.AsyncClient, accept: str | None, is_page: bool | None
) -> None:
    """To a program in JSON, to a browser as a page; every place that either names is there."""
    request = shared_client.build_request("GET", "/", headers={"Accept": accept or ""})
    if accept is None:
        del request.headers["Accept"]
    answer = await shared_client.send(request)
    assert (answer.status_code, answer.headers["Vary"]) == (200, "Accept")
    found = answer.headers["Content-Type"].startswith("text/html")
    assert is_page in (found, None)
    if found:
        places = re.findall(r'href="(/[^"]*)"', answer.text)
    else:
        places = [place for name, place in answer.json().items() if name not in ("name", "version")]
    assert set(places) == {"/docs", "/openapi.json", "/api/auth/register", "/health", "/ready", "/metrics"}
    for place in places:
        assert (await shared_client.get(place)).status_code == (405 if place == "/api/auth/register" else 200)


async def test_options_names_every_method(shared_client: httpx.AsyncClient) -> None:
    for path, methods in (("/api/payments", "GET, OPTIONS, POST"), ("/api/auth/me", "GET, OPTIONS, PATCH")):
        assert (await shared_client.options(path)).headers["Allow"] == methods


async def test_the_document_is_whole(shared_client: httpx.AsyncClient) -> None:
    """Examples that fit their schemas, every error with one, headers, security, names that tools make functions of."""
    document = (await shared_client.get("/openapi.json")).json()
    for name, schema in document["components"]["schemas"].items():
        if schema["type"] == "object":
            whole = {**schema, "components": document["components"]}
            jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(schema["examples"][0])
            assert schema["examples"], name
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"]
            assert ("security" in operation) is (path.startswith("/api/") and path not in KEYLESS)
            for status, response in operation["responses"].items():
                assert "X-Request-Id" in response["headers"]
                assert ("RateLimit-Limit" in response["headers"]) is path.startswith("/api/")
                if int(status) >= 400:
                    examples = response["content"]["application/json"]["examples"]
                    shared = document["components"]["examples"]
                    assert examples == {code: {"$ref": f"#/components/examples/{code}"} for code in examples}
                    assert all(shared[code]["value"]["code"] == code for code in examples)
            if path.startswith("/api/"):
                assert {"429", "500", "503"} <= set(operation["responses"])
    [key] = document["paths"]["/api/payments"]["post"]["parameters"]
    assert key["required"] is True
