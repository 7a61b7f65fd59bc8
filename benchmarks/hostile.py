"""Measures what a tenant notices of a hostile one beside him: how long his creates take, and until their webhooks come.

Each attack is one that once stopped or slowed everybody. Where it is a matter of load, it is compared with a neighbour
who sends the same load without what is hostile in it: two cores are shared by whoever asks for them.
"""

import asyncio
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
from tests.support.background import Background
from tests.support.processes import Gateway, end_velocity_rule, running, wait_until

from mockpay.postgres.embedded import DATABASE, OWNER, SUPERUSER, EmbeddedPostgres
from mockpay.postgres.pool import connect

ADMIN_KEY: Final = "the-admin-key-of-the-benchmark"
ROUNDS: Final = 3
PAYMENTS: Final = 25
HOSTS: Final = 100_000
RULES: Final = 100
HELD: Final = 1000
NEVER: Final = {"fault": "drop", "event": "fraud.detected", "every": 1_000_000}
FLAGGED: Final = {"amount": 200_000, "currency": "USD"}
NOWHERE: Final = "http://127.0.0.1:9/"

# To as many receivers, nobody of whom answers: each address of 127/8 is this machine, and nobody listens there.
MANY_HOSTS: Final = """
WITH tenant AS (
    INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
    VALUES (gen_random_uuid(), 'Hosts', gen_random_uuid() || '@example.com', sha256(gen_random_uuid()::text::bytea),
            'standard', now()) RETURNING id
), secret AS (
    INSERT INTO webhook_secrets (tenant_id, id, secret, created_at)
    SELECT id, gen_random_uuid(), repeat('ab', 32), now() FROM tenant
), payment AS (
    INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
    SELECT id, gen_random_uuid(), 1, 'USD', 'success', 'k', now(), now() FROM tenant RETURNING *
)
INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts,
                                next_attempt_at, created_at)
SELECT tenant_id, gen_random_uuid(), id, gen_random_uuid(), 'payment.success', 'http://' || host || '/', host, '{}', 3,
       now() - interval '1 hour', now()
FROM payment
CROSS JOIN LATERAL (
    -- Every second one is for a receiver that takes its time, and so is full.
    SELECT CASE WHEN number % 2 = 0 THEN $2
                ELSE format('127.%s.%s.%s:9', 1 + number / 62500, number / 250 % 250, 1 + number % 250) END AS host
    FROM generate_series(1, $1::integer) AS number
) AS receivers
"""
GIVEN_UP: Final = """
UPDATE webhook_deliveries SET status = 'dead', finished_at = now(), claimed_at = NULL WHERE status = 'pending'
"""
POISON: Final = """
CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
CREATE TRIGGER refuse_poison BEFORE UPDATE ON payments FOR EACH ROW WHEN (OLD.idempotency_key = 'poison')
    EXECUTE FUNCTION refuse_poison()
"""
CURE: Final = "DROP TRIGGER IF EXISTS refuse_poison ON payments; DROP FUNCTION IF EXISTS refuse_poison"


@dataclass(frozen=True)
class Stage:
    """A gateway as a user starts it, with the tenant whose times are measured, and what an attack may use."""

    gateway: Gateway
    sink: Background
    owner_url: str
    superuser_url: str

    @property
    def url(self) -> str:
        return str(self.gateway.client.base_url).rstrip("/")


@dataclass(frozen=True)
class Times:
    """Seconds, each the median of several payments."""

    create: float
    webhook: float


Attack = Callable[[Stage], ExitStack]


def measure(folder: Path) -> Iterator[tuple[str, Times, Times]]:
    """Yields what is attacked, the times with the usual neighbour, and those with the hostile one."""
    settings = {
        "MOCKPAY_DATA_DIR": str(folder / "hostile"),
        "MOCKPAY_ADMIN_KEY": ADMIN_KEY,
        "MOCKPAY_RATE_LIMIT_TIER": "unlimited",
        "MOCKPAY_LOG_LEVEL": "error",
    }
    gateway = Gateway(folder / "hostile.log", **settings)
    with running(gateway):
        end_velocity_rule(str(gateway.client.base_url), ADMIN_KEY)
        sink = Background(0)
        postgres = EmbeddedPostgres(folder / "hostile")
        assert postgres.join(), "the gateway runs it"
        stage = Stage(gateway, sink, postgres.url(OWNER, DATABASE), postgres.url(SUPERUSER, DATABASE))
        try:
            for what, usual, hostile in CASES:
                yield what, *_in_turns(stage, usual, hostile)
        finally:
            sink.close()
        gateway.stop()


def _in_turns(stage: Stage, usual: Attack, hostile: Attack) -> tuple[Times, Times]:
    found: dict[Attack, list[Times]] = {usual: [], hostile: []}
    for _ in range(ROUNDS):
        for attack, times in found.items():
            with attack(stage):
                times.append(_times(stage))
    return _middle(found[usual]), _middle(found[hostile])


def _times(stage: Stage) -> Times:
    """Measures payments that are flagged, one after the other, and so have a webhook at once."""
    stage.gateway.register(f"{uuid.uuid4()}@example.com")
    creates, webhooks = [], []
    for _ in range(PAYMENTS):
        path = f"/{uuid.uuid4()}"
        body = {**FLAGGED, "webhook_url": stage.sink.receiver.url.replace("/webhooks", path)}
        started = time.perf_counter()
        answer = stage.gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": path})
        creates.append(time.perf_counter() - started)
        answer.raise_for_status()
        wait_until(lambda path=path: any(each.path == path for each in stage.sink.receiver.received))  # type: ignore[misc]  # a default, so that it is this path
        webhooks.append(time.perf_counter() - started)
        stage.sink.call(stage.sink.receiver.received.clear)
    return Times(median(creates), median(webhooks))


def _middle(times: Sequence[Times]) -> Times:
    return Times(median(each.create for each in times), median(each.webhook for each in times))


def nobody(_stage: Stage) -> ExitStack:
    return ExitStack()


def rotates_secrets(stage: Stage) -> ExitStack:
    return _loads(stage, "POST", "/api/auth/rotate-webhook-secret", 4)


def reads_itself(stage: Stage) -> ExitStack:
    return _loads(stage, "GET", "/api/auth/me", 4)


def creates_flagged(stage: Stage) -> ExitStack:
    return _loads(stage, "POST", "/api/payments", 4, {**FLAGGED, "webhook_url": NOWHERE})


def creates_flagged_with_rules(stage: Stage) -> ExitStack:
    return _loads(stage, "POST", "/api/payments", 4, {**FLAGGED, "webhook_url": NOWHERE}, rules=RULES)


def holds_requests(stage: Stage) -> ExitStack:
    return _loads(stage, "POST", "/api/payments", HELD, {"amount": 5, "currency": "USD"}, fault="timeout")


def has_many_hosts(stage: Stage) -> ExitStack:
    """Half of them one that takes its time, which is soon full."""
    stack = ExitStack()
    slow = Background(0)
    slow.call(slow.receiver.hold)
    stack.callback(slow.close)
    stack.callback(slow.call, slow.receiver.gate.set)
    asyncio.run(_execute(stage.owner_url, MANY_HOSTS, HOSTS, f"127.0.0.1:{slow.receiver.port}"))
    stack.callback(lambda: asyncio.run(_execute(stage.owner_url, GIVEN_UP)))
    return stack


def has_a_poisoned_outcome(stage: Stage) -> ExitStack:
    stage.gateway.register(f"{uuid.uuid4()}@example.com")
    body = {"amount": 5, "currency": "USD", "outcome": {"status": "success", "after_seconds": 1}}
    stage.gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": "poison"}).raise_for_status()
    asyncio.run(_execute(stage.superuser_url, CURE))
    asyncio.run(_execute(stage.superuser_url, POISON))
    return ExitStack()


CASES: Final[Sequence[tuple[str, Attack, Attack]]] = (
    ("webhook secrets rotated all the time", reads_itself, rotates_secrets),
    (f"{RULES} fault rules that never fire, and flagged creates", creates_flagged, creates_flagged_with_rules),
    (f"{HELD:,} requests that ask to be held", nobody, holds_requests),
    (f"webhooks for {HOSTS:,} receivers that don't answer, half of them one", nobody, has_many_hosts),
    ("a planned outcome that can't be settled", nobody, has_a_poisoned_outcome),
)


def _loads(
    stage: Stage,
    method: str,
    path: str,
    connections: int,
    body: dict[str, Any] | None = None,
    *,
    fault: str | None = None,
    rules: int = 0,
) -> ExitStack:
    """A tenant who sends the same again and again, from a process of his own, until the end of this."""
    stage.gateway.register(f"{uuid.uuid4()}@example.com")
    for _ in range(rules):
        stage.gateway.client.post("/api/faults", json=NEVER).raise_for_status()
    headers = {"Authorization": stage.gateway.client.headers["Authorization"]}
    if fault:
        headers["X-MockPay-Fault"] = fault
    spawning = multiprocessing.get_context("spawn")
    process = spawning.Process(target=_send, args=(method, stage.url + path, headers, body, connections), daemon=True)
    process.start()
    stack = ExitStack()
    stack.callback(process.join)
    stack.callback(process.kill)
    time.sleep(2)  # until it is under way
    return stack


def _send(method: str, url: str, headers: dict[str, str], body: dict[str, Any] | None, connections: int) -> None:
    asyncio.run(_send_all(method, url, headers, body, connections))


async def _send_all(
    method: str, url: str, headers: dict[str, str], body: dict[str, Any] | None, connections: int
) -> None:
    async def send(session: aiohttp.ClientSession) -> None:
        while True:
            key = {"Idempotency-Key": uuid.uuid4().hex} if body else {}
            try:
                async with session.request(method, url, json=body, headers=headers | key) as answer:
                    await answer.read()
                    refused = not answer.ok
            except (aiohttp.ClientError, TimeoutError, OSError):
                refused = True
            if refused:
                await asyncio.sleep(1)

    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(send(session) for _ in range(connections)))


async def _execute(url: str, statement: str, *arguments: object) -> None:
    connection = await connect(url)
    try:
        await connection.execute(statement, *arguments, timeout=600)
    finally:
        await connection.close()
