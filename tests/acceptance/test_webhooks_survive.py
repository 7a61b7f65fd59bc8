"""Webhooks over kill -9, in one program and in several, to a real receiver."""

import asyncio
import hashlib
import hmac
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook

from mockpay.webhooks.signing import standard_webhooks_secret
from tests.acceptance.conftest import Start
from tests.support.background import Background
from tests.support.processes import Program, run, running, wait_until
from tests.support.servers import Server, free_port

FAST = {"MOCKPAY_WEBHOOK_TIMEOUT_SECONDS": "1", "MOCKPAY_WEBHOOK_BACKOFF_SECONDS": "0.2"}


def test_a_signed_webhook_arrives_once(start: Start, listen: Callable[..., Background]) -> None:
    gateway, background = start(**FAST), listen()
    tenant = gateway.register()
    payment_id = gateway.pay(background.receiver.url)
    [received] = background.wait_for(1)
    digest = hmac.new(tenant["webhook_secret"].encode(), received.body, hashlib.sha256).hexdigest()
    assert received.headers["X-MockPay-Signature"] == f"sha256={digest}"
    Webhook(standard_webhooks_secret(tenant["webhook_secret"])).verify(received.body, received.headers)
    assert json.loads(received.body)["payment_id"] == payment_id
    wait_until(lambda: gateway.delivery(payment_id)["status"] == "delivered")
    assert gateway.stop() == 0
    assert len(background.receiver.received) == 1


def test_a_dead_receiver_leaves_three_logged_attempts(start: Start) -> None:
    gateway = start(**FAST)
    gateway.register()
    payment_id = gateway.pay(f"http://127.0.0.1:{free_port()}/")
    wait_until(lambda: gateway.delivery(payment_id)["status"] == "dead")
    delivery = gateway.delivery(payment_id)
    assert [attempt["error"] for attempt in delivery["attempt_log"]] == ["connection_refused"] * 3


def test_a_kill_between_commit_and_delivery(start: Start, listen: Callable[..., Background]) -> None:
    """The first attempt finds nobody there; the server is killed before the second."""
    settings = FAST | {"MOCKPAY_WEBHOOK_BACKOFF_SECONDS": "2"}
    port = free_port()
    gateway = start(**settings)
    tenant = gateway.register()
    payment_id = gateway.pay(f"http://127.0.0.1:{port}/")
    wait_until(lambda: gateway.delivery(payment_id)["attempts"] == 1)
    gateway.kill()
    background = listen(port)
    again = start(**settings)
    background.wait_for(1)
    again.act_for(tenant)
    wait_until(lambda: again.delivery(payment_id)["status"] == "delivered")


def test_a_kill_in_mid_delivery(start: Start, listen: Callable[..., Background]) -> None:
    """The receiver has the request and has not answered: it gets it again when the lease ends."""
    background = listen()
    background.receiver.hold()
    gateway = start(**FAST)
    tenant = gateway.register()
    payment_id = gateway.pay(background.receiver.url)
    background.wait_for(1)
    gateway.kill()
    background.call(background.receiver.gate.set)
    again = start(**FAST)
    first, second = background.wait_for(2)
    assert first.headers["X-MockPay-Delivery"] == second.headers["X-MockPay-Delivery"]
    assert (first.headers["X-MockPay-Attempt"], second.headers["X-MockPay-Attempt"]) == ("1", "2")
    assert first.body == second.body
    again.act_for(tenant)
    wait_until(lambda: again.delivery(payment_id)["status"] == "delivered")
    log = again.delivery(payment_id)["attempt_log"]
    assert [(attempt["error"], attempt["response_status"]) for attempt in log] == [("worker_lost", None), (None, 200)]


def test_a_graceful_stop_drains(start: Start, listen: Callable[..., Background]) -> None:
    background = listen()
    background.receiver.hold()
    gateway = start(MOCKPAY_WEBHOOK_TIMEOUT_SECONDS="20")
    tenant = gateway.register()
    payment_id = gateway.pay(background.receiver.url)
    background.wait_for(1)
    gateway.process.send_signal(signal.SIGTERM)
    threading.Timer(0.5, background.call, [background.receiver.gate.set]).start()
    assert gateway.process.wait(30) == 0
    again = start()
    again.act_for(tenant)
    assert again.delivery(payment_id)["status"] == "delivered"
    assert len(background.receiver.received) == 1


def test_api_and_worker_alone_on_an_external_database(
    start: Start, listen: Callable[..., Background], server: Server, empty_database_url: str, folder: Path
) -> None:
    """The API is killed right after its commit; no worker ever ran until then."""
    database_url = server.url(urlsplit(empty_database_url).path.removeprefix("/"))
    settings = {"MOCKPAY_DATABASE_URL": database_url, "MOCKPAY_ENV": "production", "MOCKPAY_ADMIN_KEY": "k" * 32}
    unmigrated = run("api", MOCKPAY_PORT="0", **settings)
    assert "run 'mockpay migrate' first" in unmigrated.stderr
    owner = settings | {"MOCKPAY_MIGRATION_DATABASE_URL": empty_database_url}
    with_ten = [Program(folder / f"migrate-{number}.log", "migrate", **owner) for number in range(10)]
    assert [program.process.wait(60) for program in with_ten] == [0] * 10
    assert sum("applied 0001_first_light.sql" in program.output for program in with_ten) == 1
    gateway = start("api", **settings)
    tenant = gateway.register()
    payment_id = gateway.pay("http://8.8.8.8:1/")
    gateway.kill()
    lines = [json.loads(line) for line in gateway.output.splitlines() if line.startswith("{")]
    assert any(line["event"] == "request" and line["path"] == "/api/payments" for line in lines)
    for secret in (tenant["api_key"], tenant["webhook_secret"], "k" * 32, database_url):
        assert secret not in gateway.output
    background = listen()
    redirect(server, empty_database_url, background.receiver.url)
    development = {"MOCKPAY_DATABASE_URL": database_url}
    worker = Program(folder / "worker.log", "worker", **development)
    with running(worker):
        [received] = background.wait_for(1)
        assert json.loads(received.body)["payment_id"] == payment_id
        worker.wait_for_output("webhook delivered")
        assert worker.stop() == 0


def redirect(server: Server, url: str, webhook_url: str) -> None:
    """Point what is queued at a receiver on this machine, which production would have refused at registration."""
    from mockpay.postgres.pool import connect

    async def act() -> None:
        connection = await connect(server.direct_url(urlsplit(url).path.removeprefix("/")))
        await connection.execute("UPDATE webhook_deliveries SET url = $1", webhook_url)
        await connection.close()

    asyncio.run(act())


def test_production_refuses_private_webhook_urls(start: Start, database_url: str) -> None:
    settings = {"MOCKPAY_DATABASE_URL": database_url, "MOCKPAY_ENV": "production", "MOCKPAY_ADMIN_KEY": "k" * 32}
    gateway = start("api", **settings)
    gateway.register()
    for url in (
        "http://127.0.0.1:4000/",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
    ):
        response = gateway.client.post(
            "/api/payments",
            json={"amount": 5, "currency": "USD", "webhook_url": url},
            headers={"Idempotency-Key": url},
        )
        assert response.status_code == 400, url
        assert [fault["field"] for fault in response.json()["details"]] == ["webhook_url"]


def test_an_outcome_survives_a_kill(start: Start, listen: Callable[..., Background]) -> None:
    """It was due while nothing ran, and comes after the restart, once, with its webhook."""
    gateway, background = start(**FAST), listen()
    tenant = gateway.register()
    body = {
        "amount": 5, "currency": "USD", "webhook_url": background.receiver.url,
        "outcome": {"status": "failed", "failure_code": "lost_card", "after_seconds": 1},
    }  # fmt: skip
    created = gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": "k"})
    gateway.kill()
    second = start(**FAST)
    second.act_for(tenant)
    [received] = background.wait_for(1)
    assert json.loads(received.body)["failure_code"] == "lost_card"
    trail = second.client.get(f"/api/payments/{created.json()['id']}/audit").json()
    assert [entry["triggered_by"] for entry in trail["history"]] == ["create_api", "scenario"]
    assert second.stop() == 0
