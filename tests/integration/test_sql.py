"""Every SQL statement is valid on the migrated schema, and the queue's plans use their index."""

import importlib
import pkgutil
import re
from typing import Any
from uuid import UUID

import asyncpg
import pytest

import mockpay
from mockpay.cursor import LAST_ID
from mockpay.journal import store as journal
from mockpay.payments import creation_store
from mockpay.postgres.pool import SESSION_SETTINGS
from mockpay.timeline import store as timeline
from mockpay.webhooks import claims, log, waits
from tests.support.plans import generic_plan
from tests.support.queue import rows_touched

NOBODY, LAST = f"'{UUID(int=0)}'", f"'{LAST_ID}'"


def statements() -> dict[str, str]:
    """Every module constant whose name ends in _SQL."""
    found: dict[str, str] = {}
    for module_info in pkgutil.walk_packages(mockpay.__path__, "mockpay."):
        if module_info.name.endswith("__main__"):
            continue
        module = importlib.import_module(module_info.name)
        found |= {f"{module_info.name}.{name}": text for name, text in vars(module).items() if name.endswith("_SQL")}
    return found


def test_sql_is_found() -> None:
    assert len(statements()) > 25


async def test_every_statement_prepares(superuser: Any) -> None:
    for name, statement in statements().items():
        try:
            await superuser.prepare(statement)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{name}: {error}")


@pytest.fixture
async def backlog(superuser: Any) -> None:
    """20,000 deliveries that wait for their backoff, and 20,000 that are done."""
    await superuser.execute(
        """
        WITH tenant AS (
            INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
            VALUES (gen_random_uuid(), 'T', 't@example.com', sha256('x'), 'standard', now()) RETURNING id
        ), payment AS (
            INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                                  updated_at)
            SELECT id, gen_random_uuid(), 1, 'USD', 'success', 'k', now(), now() FROM tenant RETURNING *
        )
        INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, status,
                                        max_attempts, next_attempt_at, created_at, finished_at)
        SELECT tenant_id, gen_random_uuid(), id, gen_random_uuid(), 'payment.success', 'http://h/', 'h:80', '{}',
               CASE WHEN number % 2 = 0 THEN 'pending' ELSE 'delivered' END, 3,
               now() + interval '1 hour' + number * interval '1 second', now(),
               CASE WHEN number % 2 = 0 THEN NULL ELSE now() END
        FROM payment, generate_series(1, 40000) AS number
        """
    )
    await superuser.execute("ANALYZE webhook_deliveries, tenants")


HOW_FAR = [1000, 100, 32, 8]
CLAIM: list[tuple[str, list[object], list[str]]] = [
    (claims._LOOK_SQL, ["NULL", NOBODY, "'{}'", "'{}'", *HOW_FAR], ["webhook_deliveries_due_of_tenant"] * 2),
    (claims._LOOK_BY_HOST_SQL, ["NULL", f"ARRAY[{NOBODY}::uuid]", "'{a}'", "'{}'", "'{}'", 200, 32], ["webhook_deliveries_due_of_host"] * 2),
    (claims._TAKE_SQL, ["NULL", f"ARRAY[{NOBODY}::uuid]", f"ARRAY[{NOBODY}::uuid]", "'10 seconds'"], ["webhook_deliveries_pkey"]),
]  # fmt: skip


@pytest.mark.usefixtures("backlog")
async def test_the_claim_uses_its_indexes_whatever_is_backing_off(superuser: Any) -> None:
    for statement, arguments, indexes in CLAIM:
        text = await generic_plan(superuser, statement, *arguments)
        used = re.findall(r"Index (?:Only )?Scan using (\w+) on webhook_deliveries", text)
        assert [each for each in used if each == indexes[0]][: len(indexes)] == indexes, text
        assert "Seq Scan on webhook_deliveries" not in text, text


@pytest.mark.usefixtures("backlog")
async def test_the_secrets_of_a_claim_are_found_along_their_index(superuser: Any) -> None:
    """Also beside those that a version before left behind by the thousand."""
    await superuser.execute(
        "INSERT INTO webhook_secrets (tenant_id, id, secret, created_at, expires_at) "
        "SELECT id, gen_random_uuid(), repeat('ab', 32), now(), now() - number * interval '1 minute' "
        "FROM tenants, generate_series(1, 5000) AS number"
    )
    await superuser.execute("ANALYZE webhook_secrets")
    text = await generic_plan(superuser, claims._TAKE_SQL, *CLAIM[-1][1])
    assert text.count("using webhook_secrets_newest on webhook_secrets") == 2, text
    assert "Seq Scan on webhook_secrets" not in text, text


ALONG_ITS_INDEX: list[tuple[str, list[object], str]] = [
    (log._DEAD_PAGE_SQL, [NOBODY, LAST, 11], "webhook_deliveries_dead_of_tenant"),
    (log._DEAD_LETTERS_SQL, [LAST, *["NULL"] * 6, 11], "webhook_deliveries_dead"),
    (log._PAGE_SQL, [NOBODY, LAST, "NULL", 11], "webhook_deliveries_pkey"),
    (log._BY_ID_LOCKED_SQL, [NOBODY, LAST], "webhook_deliveries_pkey"),
    (log._TENANT_OF_SQL, [LAST], "webhook_deliveries_pkey"),
    (log._FORGET_DELIVERED_SQL, ["'1970-01-01Z'", "'30 days'"], "webhook_deliveries_delivered"),
    (waits._BEGIN_ANEW_SQL, [NOBODY, "now()", NOBODY], "webhook_deliveries_due_of_tenant"),
    (log._REPLAY_SQL, ["'{}'", "'{}'", "'{}'", "'{}'", 3, "'{dead}'"], "webhook_deliveries_pkey"),
]  # fmt: skip


@pytest.mark.usefixtures("backlog")
async def test_lists_and_replays_do_not_scan_the_log(superuser: Any) -> None:
    """In so small a table, to delete a thousand by their keys may be done by a scan; to find them may not."""
    for statement, arguments, index in ALONG_ITS_INDEX:
        text = await generic_plan(superuser, statement, *arguments)
        assert re.search(rf"Index (Only )?Scan (Backward )?using {index}", text), text
        assert "Seq Scan on webhook_deliveries  " not in text, text


async def test_recent_payments_are_counted_along_their_index_in_a_new_table(superuser: Any) -> None:
    """As it is in the first minute of a new database, under load: nothing was analysed yet."""
    await superuser.execute(
        """
        WITH tenant AS (
            INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
            VALUES (gen_random_uuid(), 'T', 't@example.com', sha256('x'), 'standard', now()) RETURNING id
        )
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
        SELECT id, gen_random_uuid(), 1, 'USD', 'pending', number::text, now() - number * interval '1 ms', now()
        FROM tenant, generate_series(1, 20000) AS number
        """
    )
    for name, value in SESSION_SETTINGS.items():
        await superuser.execute("SELECT set_config($1, $2, false)", name, value)
    text = await generic_plan(superuser, creation_store._FACTS_SQL, "'{}'", "now()", *["'{}'"] * 7)
    assert re.search("Index (Only )?Scan using payments_newest", text), text
    assert "Index Scan using idempotency_keys_pkey" in text, text
    assert "Seq Scan on payments" not in text, text


@pytest.mark.usefixtures("backlog")
async def test_an_idle_claim_reads_next_to_nothing(superuser: Any) -> None:
    statement, arguments, _ = CLAIM[0]
    await generic_plan(superuser, statement, *arguments)
    explained = await superuser.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained ({', '.join(map(str, arguments))})"
    )
    assert rows_touched(explained) < 5, explained


EVER = ["'1970-01-01Z'", NOBODY, "'9999-01-01Z'", 101]


@pytest.mark.usefixtures("backlog")
async def test_a_page_of_the_timeline_costs_what_it_shows(superuser: Any) -> None:
    """Read along the index: nothing is sorted but ties, and the limit ends it."""
    for statement, index in (
        (journal._PAGE_SQL, "requests_pkey"), (timeline._CHANGES_SQL, "audit_log_in_time"),
        (timeline._WEBHOOKS_SQL, "webhook_deliveries_in_time"), (timeline._ATTEMPTS_SQL, "delivery_attempts_in_time"),
    ):  # fmt: skip
        text = await generic_plan(superuser, statement, NOBODY, *EVER)
        assert re.search(rf"Index Scan using {index}", text), text
        assert not re.search(r"(^|->  )Sort ", text), text


@pytest.fixture
async def many_payments(superuser: Any) -> None:
    """2,000, each with one of everything."""
    await superuser.execute(
        """
        WITH tenant AS (
            INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
            VALUES (gen_random_uuid(), 'T', 't@example.com', sha256('x'), 'standard', now()) RETURNING id
        )
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
        SELECT id, gen_random_uuid(), 1, 'USD', 'success', number::text, now(), now() FROM tenant, generate_series(1, 2000) AS number
        """
    )
    await superuser.execute(
        """
        INSERT INTO audit_log (tenant_id, payment_id, sequence, id, new_status, triggered_by, metadata, created_at, prev_hash,
                               entry_hash)
        SELECT tenant_id, id, 1, id, 'pending', 'create_api', '{}', now(), repeat('0', 64), repeat('0', 64) FROM payments;
        INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, status,
                                        max_attempts, next_attempt_at, created_at, finished_at)
        SELECT tenant_id, id, id, id, 'payment.success', 'http://h/', 'h:80', '{}', 'delivered', 3, now(), now(), now() FROM payments;
        INSERT INTO delivery_attempts (tenant_id, delivery_id, attempt, url, started_at, response_status)
        SELECT tenant_id, id, 1, 'http://h/', now(), 200 FROM payments;
        INSERT INTO requests (tenant_id, id, started_at, request_id, method, path, operation, payment_id, idempotency_key,
                              replayed, duration_milliseconds)
        SELECT tenant_id, gen_random_uuid(), now(), 'r', 'POST', '/', operation, CASE operation WHEN 'get' THEN id END, id::text, false, 1
        FROM payments, unnest(ARRAY['get', 'create']) AS operation;
        ANALYZE audit_log, webhook_deliveries, delivery_attempts, requests
        """
    )


@pytest.mark.usefixtures("many_payments")
async def test_the_timeline_of_a_payment_reads_its_own_rows(superuser: Any) -> None:
    for statement, arguments, index in (
        (journal._OF_PAYMENT_SQL, [NOBODY, "'k'"], "requests_that_create"),
        (journal._OF_PAYMENT_SQL, [NOBODY, "'k'"], "requests_of_payment"),
        (timeline._CHANGES_OF_PAYMENT_SQL, [NOBODY], "audit_log_(pkey|in_time)"),
        (timeline._WEBHOOKS_OF_PAYMENT_SQL, [NOBODY], "webhook_deliveries_of_payment"),
        (timeline._ATTEMPTS_OF_PAYMENT_SQL, [NOBODY], "webhook_deliveries_of_payment"),
    ):  # fmt: skip
        text = await generic_plan(superuser, statement, NOBODY, *EVER, *arguments)
        assert re.search(rf"(Index Scan using|Bitmap Index Scan on) {index}", text), text
        assert "Seq Scan" not in text, text


@pytest.mark.usefixtures("backlog")
async def test_old_requests_are_found_along_the_key(superuser: Any) -> None:
    text = await generic_plan(superuser, journal._FORGET_SQL, "'24 hours'")
    assert "Index Scan using requests_pkey" in text, text
