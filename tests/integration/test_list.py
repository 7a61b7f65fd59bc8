"""The list: newest first, walked by cursor, filtered."""

import itertools
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from mockpay.payments.store import _FILTERED_LIST_SQL, _LIST_SQL
from tests.support.plans import generic_plan

pytestmark = pytest.mark.usefixtures("api_key")


@pytest.fixture
async def thirty(superuser: Any, api_key: str) -> None:
    """Thirty payments, many of them created in the same microsecond."""
    await superuser.execute(
        """
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                              updated_at)
        SELECT tenants.id, gen_random_uuid(), number, CASE WHEN number % 3 = 0 THEN 'EUR' ELSE 'USD' END,
               CASE WHEN number % 2 = 0 THEN 'success' ELSE 'pending' END, number::text, at, at
        FROM tenants, generate_series(1, 30) AS number,
             LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + number / 10 * interval '1 hour' AS at) AS time
        """
    )


async def walk(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (await client.get("/api/payments", params=query | ({"cursor": cursor} if cursor else {}))).json()
        assert page["total"] == len(page["data"])
        found += page["data"]
        cursor = page["next_cursor"]
        assert page["has_more"] is (cursor is not None)
        if cursor is None:
            return found


async def test_an_empty_list(client: httpx.AsyncClient) -> None:
    page = (await client.get("/api/payments")).json()
    assert page == {"data": [], "total": 0, "has_more": False, "next_cursor": None}


@pytest.mark.usefixtures("thirty")
async def test_the_default_page_is_ten_newest_first(client: httpx.AsyncClient) -> None:
    page = (await client.get("/api/payments")).json()
    assert (page["total"], page["has_more"]) == (10, True)
    keys = [(payment["created_at"], payment["id"]) for payment in page["data"]]
    assert keys == sorted(keys, reverse=True)


@pytest.mark.usefixtures("thirty")
@pytest.mark.parametrize("limit", [1, 7, 10, 30, 100])
async def test_a_walk_sees_each_payment_once(client: httpx.AsyncClient, limit: int) -> None:
    found = await walk(client, limit=limit)
    assert len({payment["id"] for payment in found}) == len(found) == 30


@pytest.mark.usefixtures("thirty")
async def test_payments_created_during_a_walk_do_not_disturb_it(client: httpx.AsyncClient) -> None:
    first = (await client.get("/api/payments", params={"limit": 10})).json()
    for number in range(5):
        body = {"amount": 5, "currency": "USD"}
        await client.post("/api/payments", json=body, headers={"Idempotency-Key": f"new-{number}"})
    rest = await walk(client, limit=10, cursor=first["next_cursor"])
    assert len({payment["id"] for payment in first["data"] + rest}) == 30
    assert len(rest) == 20


async def test_a_walk_over_100_000_sees_each_old_payment_once(client: httpx.AsyncClient, superuser: Any) -> None:
    """While new ones are created between the pages, and ones "from the past" by a process whose clock is behind."""
    await superuser.execute(
        """
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                              updated_at)
        SELECT tenants.id, gen_random_uuid(), 1, 'USD', 'pending', 'old ' || number, at, at
        FROM tenants, generate_series(1, 100000) AS number,
             LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + number / 10 * interval '1 second' AS at) AS time
        """
    )
    await superuser.execute("ANALYZE payments")
    old = {row["id"] for row in await superuser.fetch("SELECT id::text FROM payments")}
    seen: Counter[str] = Counter()
    query: dict[str, Any] = {"limit": 100}
    for number in itertools.count():
        page = (await client.get("/api/payments", params=query)).json()
        seen.update(payment["id"] for payment in page["data"])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        if number % 100 == 0:
            headers = {"Idempotency-Key": f"new {number}"}
            await client.post("/api/payments", json={"amount": 5, "currency": "USD"}, headers=headers)
            await superuser.execute(
                """
                INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                                      updated_at)
                SELECT tenant_id, gen_random_uuid(), 1, 'USD', 'pending', 'late ' || $1, created_at, created_at
                FROM payments WHERE idempotency_key LIKE 'old %' ORDER BY random() LIMIT 1
                """,
                str(number),
            )
    assert set(seen.values()) == {1}
    assert old <= set(seen)


@pytest.mark.usefixtures("thirty")
@pytest.mark.parametrize(("query", "count"), [
    ({"status": "success"}, 15), ({"currency": "eur"}, 10), ({"status": "pending", "currency": "USD"}, 10),
    ({"created_from": "2026-01-01T02:00:00Z"}, 11), ({"created_to": "2026-01-01T02:00:00Z"}, 19),
    ({"created_from": "2026-01-01T01:00:00+00:00", "created_to": "2026-01-01T03:00:00+01:00"}, 10),
    ({"status": "failed"}, 0),
])  # fmt: skip
async def test_filters(client: httpx.AsyncClient, query: dict[str, str], count: int) -> None:
    assert len(await walk(client, limit=4, **query)) == count


async def test_any_filter_finds_what_a_scan_finds(client: httpx.AsyncClient, superuser: Any) -> None:
    """Over every status, a few currencies with some pairs empty, and times that several share."""
    await superuser.execute(
        """
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                              updated_at, failure_code, flag_rule)
        SELECT tenants.id, gen_random_uuid(), number, (ARRAY['AUD', 'EUR', 'JPY', 'USD'])[1 + number % 4], status,
               number::text, at, at, CASE status WHEN 'failed' THEN 'card_declined' END,
               CASE status WHEN 'flagged' THEN 'velocity' END
        FROM tenants, generate_series(1, 300) AS number,
             LATERAL (SELECT (ARRAY['pending', 'success', 'failed', 'flagged'])[1 + number / 7 % 4] AS status,
                             timestamptz '2026-01-01 00:00Z' + number / 5 * interval '1 second' AS at) AS drawn
        """
    )
    everything = await walk(client, limit=100)
    assert len(everything) == 300
    for status in (None, "pending", "failed", "refunded"):
        for currency in (None, "AUD", "USD", "CHF"):
            query = {name: value for name, value in (("status", status), ("currency", currency)) if value}
            wanted = [
                payment["id"] for payment in everything
                if status in (None, payment["status"]) and currency in (None, payment["currency"])
            ]  # fmt: skip
            assert [payment["id"] for payment in await walk(client, limit=7, **query)] == wanted


@pytest.mark.usefixtures("thirty")
async def test_the_depth_of_a_page_does_not_change_its_plan(superuser: Any) -> None:
    await superuser.execute("SET enable_seqscan = off")  # a table of thirty rows needs no index
    tenant = await superuser.fetchval("SELECT id FROM tenants")
    place = f"'{tenant}'", "'2026-01-01 01:00Z'", f"'{tenant}'", "NULL", 11
    plan = await generic_plan(superuser, _LIST_SQL, *place)
    assert "Index Scan using payments_newest" in plan
    condition = plan.split("Index Cond")[1].splitlines()[0]
    assert "ROW(created_at, id) <" in condition
    assert "created_at >= COALESCE" in condition
    assert "Sort" not in plan


@pytest.mark.usefixtures("thirty")
async def test_a_filter_reads_nothing_that_does_not_match(superuser: Any) -> None:
    """However many payments a tenant has: 20,000 here, and only the status and the currency are looked up."""
    await superuser.execute(
        """
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                              updated_at)
        SELECT tenants.id, gen_random_uuid(), 1, 'USD', 'success', 'many ' || number, now(), now()
        FROM tenants, generate_series(1, 20000) AS number
        """
    )
    await superuser.execute("ANALYZE payments")
    tenant = await superuser.fetchval("SELECT id FROM tenants")
    place = f"'{tenant}'", "'2036-01-01 01:00Z'", f"'{tenant}'", "NULL", 11
    plan = await generic_plan(superuser, _FILTERED_LIST_SQL, *place, "'{refunded}'", "NULL")
    assert "Seq Scan" not in plan
    assert "payments_newest" not in plan
    read = await superuser.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained ({', '.join(map(str, place))}, '{{refunded}}', NULL)"
    )
    assert json.loads(read)[0]["Plan"]["Shared Hit Blocks"] < 20
