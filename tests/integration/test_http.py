"""The habits of every route: the error shape, request ids, strictness, and what a hostile client sends."""

from typing import Any

import httpx
import pytest

JSON = {"Content-Type": "application/json"}
CREATE = {**JSON, "Idempotency-Key": "k"}


async def post(client: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    return await client.post("/api/payments", content=content, headers={**CREATE, **headers})


def fields(response: httpx.Response) -> set[str]:
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "invalid_request"
    return {fault["field"] for fault in response.json()["details"]}


async def test_health_and_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json()["status"] == "ok"
    assert (await client.get("/ready")).json() == {"status": "ready"}


async def test_ready_is_503_on_an_unmigrated_database(client: httpx.AsyncClient, superuser: Any) -> None:
    await superuser.execute("DELETE FROM schema_migrations")
    response = await client.get("/ready")
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response.headers["Retry-After"] == "1"
    await superuser.execute("DROP TABLE schema_migrations")
    assert (await client.get("/ready")).status_code == 503


@pytest.mark.parametrize(("sent", "kept"), [("abc-123:X/y=", True), ("a b", False), ("x" * 129, False), ("é", False)])
async def test_request_ids(client: httpx.AsyncClient, sent: str, kept: bool) -> None:
    response = await client.get("/nowhere", headers=[(b"X-Request-Id", sent.encode())])
    answered = response.headers["X-Request-Id"]
    assert response.json()["request_id"] == answered
    assert (answered == sent) is kept
    assert answered


async def test_an_unknown_route(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/nowhere")
    assert (response.status_code, response.json()["code"]) == (404, "route_not_found")
    assert set(response.json()) == {"error", "code", "request_id"}


async def test_a_wrong_method_names_the_right_ones(client: httpx.AsyncClient) -> None:
    response = await client.delete("/api/payments")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))


async def test_no_or_an_unknown_key(client: httpx.AsyncClient) -> None:
    a = "a" * 64
    wrong = ("", "Bearer", "Bearer x", f"Basic {a}", f"Bearer {a}", f"Bearer {a.upper()}", f"Bearer {a}a")
    for authorization in (None, *wrong):
        headers = {} if authorization is None else {"Authorization": authorization}
        response = await client.get("/api/auth/me", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), authorization
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_register_and_me(client: httpx.AsyncClient, superuser: Any) -> None:
    response = await client.post("/api/auth/register", json={"name": "Ada", "email": "ada@Example.com"})
    assert response.status_code == 201
    tenant = response.json()
    assert set(tenant) == {
        "message", "tenant_id", "name", "email", "api_key", "webhook_secret", "created_at", "instructions"
    }  # fmt: skip
    assert len(bytes.fromhex(tenant["api_key"])) == len(bytes.fromhex(tenant["webhook_secret"])) == 32
    me = (await client.get("/api/auth/me", headers={"Authorization": f"Bearer {tenant['api_key']}"})).json()
    shared = ("tenant_id", "name", "email", "api_key", "webhook_secret", "created_at")
    assert me == {name: tenant[name] for name in shared} | {"rate_limit_tier": "unlimited", "webhook_url": None}
    stored = str(await superuser.fetch("SELECT * FROM tenants"))
    assert tenant["api_key"] not in stored


@pytest.mark.parametrize(("body", "faulty"), [
    ({}, {"name", "email"}), ({"name": "", "email": "x"}, {"name", "email"}),
    ({"name": "x" * 201, "email": "a@b@c"}, {"name", "email"}), ({"name": 1, "email": None}, {"name", "email"}),
    ({"name": "n", "email": "a@example.com", "mail": 1}, {"mail"}),
    ({"name": "a\0b", "email": "a@example.com"}, {"name"}),
])  # fmt: skip
async def test_every_fault_of_a_registration_is_found(
    shared_client: httpx.AsyncClient, body: dict[str, Any], faulty: set[str]
) -> None:
    assert fields(await shared_client.post("/api/auth/register", json=body)) == faulty


class TestHostileBodies:
    async def test_every_fault_is_found(self, shared_client: httpx.AsyncClient) -> None:
        body = (
            b'{"amount": -1, "currency": "ZZZ", "webhook_url": "ftp://x", "description": 7, "metadata": [],'
            b' "descripton": "typo"}'
        )
        response = await post(shared_client, body)
        assert fields(response) == {"amount", "currency", "webhook_url", "description", "metadata", "descripton"}
        assert all(fault["message"] for fault in response.json()["details"])

    @pytest.mark.parametrize("body", [
        b"", b"{", b"\xff\xfe", b'{"amount": NaN}', b'{"amount": 1e99999999999999999999}', b"[" * 100_000,
        b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}", b'{"a": 1} x', b'{"amount": ' + b"9" * 10_000,
    ])  # fmt: skip
    async def test_malformed_json(self, shared_client: httpx.AsyncClient, body: bytes) -> None:
        response = await post(shared_client, body)
        assert (response.status_code, response.json()["code"]) == (400, "malformed_json"), response.text

    @pytest.mark.parametrize("depth", [11, 450, 700, 2000, 50_000])
    @pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
    @pytest.mark.parametrize("field", [b"metadata", b"currency", b"x"])
    async def test_nesting_of_any_depth_is_a_400(
        self, shared_client: httpx.AsyncClient, depth: int, opening: bytes, closing: bytes, field: bytes
    ) -> None:
        body = b'{"amount": 5, "%s": %s1%s}' % (field, opening * depth, closing * depth)
        assert (await post(shared_client, body)).status_code == (400 if len(body) <= 256 * 1024 else 413)

    @pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"x"', b"true"])
    async def test_json_that_is_no_object(self, shared_client: httpx.AsyncClient, body: bytes) -> None:
        assert fields(await post(shared_client, body)) == {"body"}

    @pytest.mark.parametrize("amount", [
        b"0", b"-0", b"-5", b"1e400", b"1e-400", b"1e-999999999", b"1e999999999",
        b"10000000.01", b"49.991", b'"5 "', b'"1e3"',
        b'"NaN"', b'"Infinity"', b'"1_000"', b'"\\u0665"', b"true", b"null", b"[]", b"{}", b'""', b"9" * 4000,
    ])  # fmt: skip
    async def test_amounts_that_are_none(self, shared_client: httpx.AsyncClient, amount: bytes) -> None:
        assert fields(await post(shared_client, b'{"currency": "USD", "amount": %s}' % amount)) == {"amount"}

    @pytest.mark.parametrize(("amount", "currency"), [(b"100.5", b"JPY"), (b"1.234", b"USD"), (b"0.5", b"XAU")])
    async def test_more_decimals_than_the_currency_has(
        self, shared_client: httpx.AsyncClient, amount: bytes, currency: bytes
    ) -> None:
        assert fields(await post(shared_client, b'{"amount": %s, "currency": "%s"}' % (amount, currency))) == {"amount"}

    @pytest.mark.parametrize("currency", [b'"US"', b'"USDD"', b'"840"', b"840", b"null", b'"\xc3\x9fA"', b'""'])
    async def test_currencies_that_are_none(self, shared_client: httpx.AsyncClient, currency: bytes) -> None:
        assert fields(await post(shared_client, b'{"amount": 5, "currency": %s}' % currency)) == {"currency"}

    @pytest.mark.parametrize("url", [
        "x", "//x", "http://", "http:///x", "file:///etc/passwd", "http://user:pw@host/", "http://a b/", "http://h:99999/",
        "http://h\\n/", "javascript:alert(1)", "http://" + "h" * 2050,
    ])  # fmt: skip
    async def test_webhook_urls_that_are_none(self, shared_client: httpx.AsyncClient, url: str) -> None:
        body = b'{"amount": 5, "currency": "USD", "webhook_url": "%s"}' % url.encode()
        assert fields(await post(shared_client, body)) == {"webhook_url"}

    @pytest.mark.parametrize("metadata", [
        b'{"a": "\\u0000"}', b'{"\\u0000": 1}', b'{"a": 1e400}', b'{"a": 1e-400}', b'{"a": 0e-20000}', b'{"a": 0.%s1}' % (b"0" * 20_000), b'{"%s": 1}' % (b"k" * 101),
        b"{" + b",".join(b'"%d": 1' % number for number in range(51)) + b"}", b'{"a": ' + b"[" * 11 + b"]" * 11 + b"}",
    ])  # fmt: skip
    async def test_metadata_that_can_not_be_kept(self, shared_client: httpx.AsyncClient, metadata: bytes) -> None:
        assert fields(await post(shared_client, b'{"amount": 5, "currency": "USD", "metadata": %s}' % metadata)) == {
            "metadata"
        }

    async def test_metadata_is_returned_exactly(self, shared_client: httpx.AsyncClient) -> None:
        sent = b'{"big":123456789012345678901234567890,"exact":0.10000000000000000001,"text":"\\ud83d\\ude00"}'
        created = await post(shared_client, b'{"amount": 5, "currency": "USD", "metadata": %s}' % sent)
        assert created.status_code == 201
        read = await shared_client.get(f"/api/payments/{created.json()['id']}")
        for response in (created, read):
            assert b"123456789012345678901234567890" in response.content
            assert b"0.10000000000000000001" in response.content
            assert "😀" in response.text

    @pytest.mark.parametrize("size", [256 * 1024 + 1, 1024 * 1024])
    async def test_a_body_that_is_too_large(self, shared_client: httpx.AsyncClient, size: int) -> None:
        response = await post(shared_client, b" " * size)
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")

    async def test_a_streamed_body_that_is_too_large(self, shared_client: httpx.AsyncClient) -> None:
        async def chunks() -> Any:
            for _ in range(300):
                yield b" " * 1024

        response = await shared_client.post("/api/payments", content=chunks(), headers=CREATE)
        assert response.status_code == 413

    @pytest.mark.parametrize(
        "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    async def test_a_body_that_is_not_json(self, shared_client: httpx.AsyncClient, media_type: str) -> None:
        response = await post(shared_client, b'{"amount": 5, "currency": "USD"}', **{"Content-Type": media_type})
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize("id_", [
        "x", "1", "01a208dfc0d9756f80ef891a5ca24f1b", "{01a208df-c0d9-756f-80ef-891a5ca24f1b}", "%00", "%ff", "'",
    ])  # fmt: skip
    @pytest.mark.parametrize("suffix", ["", "/audit", "/deliveries"])
    async def test_malformed_ids(self, shared_client: httpx.AsyncClient, id_: str, suffix: str) -> None:
        assert fields(await shared_client.get(f"/api/payments/{id_}{suffix}")) == {"payment_id"}

    @pytest.mark.parametrize("query", [
        "limit=0", "limit=101", "limit=x", "limit=1.5", "limit=-1", "limit=%D9%A5", "limit=", "cursor=x", "cursor=%00",
        "cursor=MjAyNnwx", "status=done", "currency=ZZZ", "created_from=yesterday", "created_from=2026-01-01",
        "created_to=2026-01-01T00:00:00", "created_from=0001-01-01T00:00:00%2B23:59", "limit=1&limit=2",
        "statsu=failed",
    ])  # fmt: skip
    async def test_malformed_queries(self, shared_client: httpx.AsyncClient, query: str) -> None:
        assert fields(await shared_client.get(f"/api/payments?{query}")) == {query.partition("=")[0]}

    async def test_every_fault_of_a_query_is_found(self, shared_client: httpx.AsyncClient) -> None:
        assert fields(await shared_client.get("/api/payments?limit=0&status=x&currency=y")) == {
            "limit",
            "status",
            "currency",
        }


async def test_openapi_names_every_route_and_error(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes >= {
        ("post", "/api/auth/register"), ("get", "/api/auth/me"), ("post", "/api/payments"), ("get", "/api/payments"),
        ("get", "/api/payments/{payment_id}"), ("post", "/api/payments/{payment_id}/simulate"),
        ("post", "/api/payments/{payment_id}/refund"), ("get", "/api/payments/{payment_id}/audit"),
        ("get", "/api/payments/{payment_id}/deliveries"), ("get", "/health"), ("get", "/ready"),
    }  # fmt: skip
    create = document["paths"]["/api/payments"]["post"]
    assert set(create["responses"]) >= {"201", "400", "401", "413", "415", "422", "503"}
    body = document["components"]["schemas"]["CreatePayment"]
    assert [schema["type"] for schema in body["properties"]["amount"]["oneOf"]] == ["number", "string"]
    metadata = body["properties"]["metadata"]["oneOf"]
    assert {"type": "object", "maxProperties": 50} in metadata
    assert set(body["required"]) == {"amount", "currency"}
    error = document["components"]["schemas"]["ErrorBody"]
    assert set(error["required"]) == {"error", "code", "request_id"}


async def test_the_docs_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    assert response.status_code == 200
    assert "text/html" in response.headers["Content-Type"]
