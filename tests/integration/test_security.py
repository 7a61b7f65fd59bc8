"""The lines of docs/security.md that no other file tests: who may what, and what a hostile client can send."""

import gzip
import json
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from mockpay.postgres.pool import connect
from mockpay.settings import Settings
from mockpay.web.asgi import BODY_BYTES_MAX
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.databases import TEMPLATE, new_database
from tests.support.document import Operation, Schema, at, names_of_all_fields, operations, resolved, with_body
from tests.support.gateway import Gateway, bearer, register
from tests.support.servers import Server
from tests.support.waiting import until

ADMIN = bearer(ADMIN_KEY)
JSON = {"Content-Type": "application/json"}
TEXT = '\'; DROP TABLE payments; --" OR 1=1 /* $1 %s %(x)s {0} \\\' \\x00 {a,"b"} \u02bc\uff07 \U0001f600'
TYPED = {
    "email": ["o'--$1{}@example.com", "'or'1'='1@example.com"],
    "uri": ["http://127.0.0.1:9/';DROP-TABLE-payments;--?q=$1,{x}&\"=%27"],
}
"""What would be SQL, for fields that take no text as it comes."""
SHOWN_AS = {"reason": "refund_reason"}
INERT: dict[str, Any] = {"create_rule": {"rule_type": "amount_limit", "is_active": False}}
"""What a body needs besides what is required, so that what it makes disturbs no other test."""


def routes(*, of: str) -> list[Operation]:
    """Those that need this key: apiKey, adminKey, or none."""
    return [each for each in operations() if each.path.startswith("/api/") and (of in each.keys)]


@pytest.fixture(scope="module")
async def database_of_all(server: Server) -> AsyncIterator[str]:
    """For the tests that leave nothing behind that another of them would mind."""
    async with new_database(server, TEMPLATE) as name:
        yield name


@pytest.fixture(scope="module")
async def columns(server: Server, database_of_all: str) -> set[str]:
    connection = await connect(server.direct_url(database_of_all))
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public'"
    rows = await connection.fetch(query)
    await connection.close()
    return {row["column_name"] for row in rows}


@pytest.fixture(scope="module")
async def server_client(server: Server, database_of_all: str) -> AsyncIterator[httpx.AsyncClient]:
    """A tenant's, whose payments are never flagged."""
    settings = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)
    async with open_client(server.url(database_of_all), settings) as http:
        await register(http)
        for rule in (await http.get("/api/admin/fraud-rules", headers=ADMIN)).json()["rules"]:
            await http.delete(f"/api/admin/fraud-rules/{rule['id']}", headers=ADMIN)
        yield http


# Who may


@pytest.mark.parametrize("operation", routes(of="adminKey"), ids=str)
async def test_no_tenant_is_admin(server_client: httpx.AsyncClient, operation: Operation) -> None:
    """Nor a stranger. And none learns whether what it asks for is there, or its body right."""
    strangers = {"Authorization": ""}, bearer("ab" * 32), bearer(ADMIN_KEY[:-1]), bearer(ADMIN_KEY + "x")
    for headers, status in (*((each, 401) for each in strangers), ({}, 403)):
        for body in (operation.minimal, {"unknown": 1}):
            answer = await server_client.request(operation.method, operation.url, json=body, headers=headers)
            assert (answer.status_code, set(answer.json())) == (status, {"error", "code", "request_id"})


@pytest.mark.parametrize("operation", routes(of="apiKey"), ids=str)
async def test_the_admin_is_no_tenant(server_client: httpx.AsyncClient, operation: Operation) -> None:
    answer = await server_client.request(operation.method, operation.url, json=operation.minimal, headers=ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_every_route_of_the_api_asks_for_a_key_or_is_known_to_need_none() -> None:
    keyed = {each.name for key in ("apiKey", "adminKey") for each in routes(of=key)}
    assert {each.name for each in operations() if each.path.startswith("/api/")} - keyed == {
        "register",
        "list_test_values",
    }
    assert {each.name for each in operations() if each.is_admins} == {each.name for each in routes(of="adminKey")}


async def test_no_list_shows_anything_of_another_tenant(
    gateway: Gateway, client: httpx.AsyncClient, superuser: Any
) -> None:
    mine = await register(client, "mine@example.com")
    fault = await client.post("/api/faults", json={"fault": "reset", "probability": 0})
    await client.post("/api/payments", json={"amount": 5, "currency": "USD"}, headers={"Idempotency-Key": "of-mine"})
    payment = await gateway.succeeded("k")
    await gateway.worker().run_due()
    await until(superuser, "SELECT count(*) = 2 FROM requests")  # as the timeline shows them
    lists = [each for each in routes(of="apiKey") if each.method == "GET" and "{" not in each.path]
    secrets = ["mine@example.com", "of-mine", mine, fault.json()["id"], str(payment.id), str(gateway.tenant.id)]
    assert len(lists) >= 5
    await register(client, "other@example.com")
    for each in lists:
        text = (await client.get(each.path)).text
        assert [secret for secret in secrets if secret in text] == [], each


# Bodies


@pytest.mark.parametrize("operation", with_body(), ids=str)
async def test_no_field_can_be_set_that_is_not_the_clients(
    server_client: httpx.AsyncClient, operation: Operation, columns: set[str]
) -> None:
    """Whatever the document or a table has a name for, and inside of fields that are objects too."""
    own = {name for schema in operation.fields.values() for name in schema.get("properties", {})}
    outer = sorted((names_of_all_fields() | columns) - set(operation.fields))
    places: list[tuple[str, list[str]]] = [("", outer)]
    places += [
        (f"{name}.", sorted(set(outer) - own)) for name, schema in operation.fields.items() if "properties" in schema
    ]
    for place, names in places:
        for chunk in (names[start : start + 20] for start in range(0, len(names), 20)):
            forged = dict.fromkeys(chunk, "success")
            body = operation.minimal | ({place[:-1]: forged} if place else forged)
            answer = await asked(server_client, operation, operation.url, json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
            assert {fault["field"] for fault in answer.json()["details"]} >= {place + name for name in chunk}


@pytest.mark.parametrize("operation", with_body(), ids=str)
async def test_bodies_that_are_made_to_cost(server_client: httpx.AsyncClient, operation: Operation) -> None:
    """Too long, too deep, packed: nothing is unpacked, so a bomb is no JSON and no more than its bytes."""
    packed = json.dumps(operation.minimal).encode() + b" " * 2_000_000
    for headers, body, status, code in (
        ({}, b" " * (BODY_BYTES_MAX + 1), 413, "body_too_large"),
        ({}, b"[" * BODY_BYTES_MAX, 400, "malformed_json"), ({}, b'{"a":' * 50_000, 400, "malformed_json"),
        ({"Content-Encoding": "gzip"}, gzip.compress(packed), 400, "malformed_json"),
        ({"Content-Encoding": "deflate"}, zlib.compress(packed), 400, "malformed_json"),
    ):  # fmt: skip
        answer = await asked(server_client, operation, operation.url, content=body, headers=JSON | headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert len(answer.content) < 500


async def test_an_answer_is_not_many_times_its_request(server_client: httpx.AsyncClient) -> None:
    """However many faults a request has."""
    faulty = {f"field_{number}": number for number in range(5000)}
    for answer in (
        await server_client.post("/api/auth/register", json=faulty),
        await server_client.get("/api/payments?" + "&".join(faulty)),
        await server_client.get("/api/payments?" + "limit=1&" * 5000),
    ):
        assert answer.status_code == 400
        assert len(answer.json()["details"]) <= 25
        assert len(answer.content) < 10_000


# SQL


@pytest.mark.parametrize("operation", with_body(), ids=str)
async def test_sql_in_a_field_is_text(server_client: httpx.AsyncClient, operation: Operation) -> None:
    """Refused, or kept and shown as it came."""
    for name, schema in operation.fields.items():
        for value in hostile(schema):
            body = operation.minimal | INERT.get(operation.name, {})
            if "email" in body:
                body["email"] = f"{uuid.uuid4().hex}@example.com"
            url = at(operation.path, await a_target(server_client, operation))
            answer = await asked(server_client, operation, url, json=body | {name: value})
            if answer.is_success:
                assert answer.json().get(SHOWN_AS.get(name, name), value) == value
            else:
                assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    await assert_all_is_there(server_client)


def hostile(schema: Schema) -> Iterator[Any]:
    schema = resolved(schema)
    if schema.get("type") == "object":
        yield {TEXT[:90]: TEXT, "list": [TEXT, {TEXT[:90]: [TEXT]}]}
    yield from TYPED.get(schema.get("format", ""), [])
    yield TEXT
    yield [TEXT]


async def asked(client: httpx.AsyncClient, operation: Operation, url: str, **request: Any) -> httpx.Response:
    """With the keys that it needs."""
    headers = request.pop("headers", {}) | fresh_key() | (ADMIN if operation.is_admins else {})
    return await client.request(operation.method, url, headers=headers, **request)


def fresh_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


async def a_target(client: httpx.AsyncClient, operation: Operation) -> str:
    """The id of a thing that it would work with."""
    if "{payment_id}" in operation.path:
        return await a_payment(client, succeeded=operation.path.endswith("/refund"))
    if "{user_id}" in operation.path:
        return str((await client.get("/api/auth/me")).json()["tenant_id"])
    if "{rule_id}" in operation.path:
        rule = {"name": "R", "rule_type": "amount_limit", "threshold": 1_000_000, "is_active": False}
        return str((await client.post("/api/admin/fraud-rules", json=rule, headers=ADMIN)).json()["id"])
    return ""


async def a_payment(client: httpx.AsyncClient, *, succeeded: bool) -> str:
    body = {"amount": 50, "currency": "USD"}
    created = await client.post("/api/payments", json=body, headers=fresh_key())
    id_ = str(created.json()["id"])
    if succeeded:
        await client.post(f"/api/payments/{id_}/simulate", json={"status": "success"})
    return id_


@pytest.mark.parametrize("operation", [each for each in operations() if each.query or "{" in each.path], ids=str)
async def test_sql_in_a_path_or_query_is_text(server_client: httpx.AsyncClient, operation: Operation) -> None:
    headers = ADMIN if operation.is_admins else {}
    id_ = await a_payment(server_client, succeeded=False)
    for value in (TEXT, "1' OR '1'='1", "1; SELECT pg_sleep(9)", "' UNION SELECT api_key_sha256::text FROM tenants--"):
        for name in operation.query:
            answer = await server_client.get(at(operation.path, id_), params={name: value}, headers=headers)
            if answer.status_code == 200:  # a filter by a text: nothing has it
                assert answer.json()["total"] == 0
            else:
                assert [fault["field"] for fault in answer.json()["details"]] == [name]
        if "{" in operation.path:
            url = at(operation.path, quote(value, safe=""))
            answer = await server_client.request(operation.method, url, json=operation.minimal, headers=headers)
            assert answer.status_code in (400, 404)
    await assert_all_is_there(server_client)


async def test_sql_in_a_header_is_text(server_client: httpx.AsyncClient) -> None:
    sql = "'; DROP TABLE payments; --"
    body = {"amount": 5, "currency": "USD"}
    created = await server_client.post("/api/payments", json=body, headers={"Idempotency-Key": sql})
    assert created.json()["idempotency_key"] == sql
    for name in ("Authorization", "X-Request-Id", "X-MockPay-Fault", "X-Forwarded-For", "Origin"):
        answer = await server_client.get("/api/payments", headers={name: sql})
        assert answer.status_code in (200, 400, 401)
    assert (await server_client.get("/api/payments", headers=bearer(sql))).status_code == 401
    await assert_all_is_there(server_client)


async def assert_all_is_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/ready")).status_code == 200
    assert (await client.get("/api/auth/me")).json()["rate_limit_tier"] in ("unlimited", "standard")
    for path in ("/api/payments", "/api/faults", "/api/webhooks/deliveries", "/api/timeline"):
        assert (await client.get(path)).status_code == 200, path


# Keys


async def test_keys_are_not_guessed_without_end(database_url: str) -> None:
    """Whatever they look like, and whichever route is asked. Who has a right one is not shut out by who guesses."""
    settings = Settings(rate_limit_standard=10, admin_key=ADMIN_KEY)
    async with open_client(database_url, settings) as http:
        guesses = [bearer(f"{number:064x}") for number in range(4)] + [
            bearer(f"admin-key-{number}") for number in range(4)
        ]
        paths = "/api/auth/me", "/api/admin/users", "/api/payments"
        answers = [(await http.get(path, headers=guess)).status_code for path in paths for guess in guesses]
        assert answers == [401] * 10 + [429] * 14
        assert (await http.get("/api/admin/users", headers=ADMIN)).status_code == 200
