"""The clock of the whole program is set while it runs, the embedded database's included: back an hour, ahead a day."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.support.background import Background
from tests.support.clock import SetClock
from tests.support.processes import Gateway, run, wait_until

HOUR, DAY = 3600, 86400
SETTINGS = {
    "MOCKPAY_ADMIN_KEY": "the-admin-key-of-the-tests",
    "MOCKPAY_RATE_LIMIT_TIER": "unlimited",
    "MOCKPAY_RATE_LIMIT_HIGH": "3",
    "MOCKPAY_WEBHOOK_BACKOFF_SECONDS": "5",
}
ADMIN = {"Authorization": "Bearer the-admin-key-of-the-tests"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libfaketime is loaded as Linux does it")


@dataclass
class World:
    gateway: Gateway
    background: Background
    clock: SetClock
    limited: dict[str, str]
    """The header of a tenant that may make three requests in a quarter of an hour."""

    def create(self, key: str, **body: Any) -> httpx.Response:
        body = {"amount": 50, "currency": "USD", "webhook_url": self.background.receiver.url, **body}
        return self.gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": key})

    def delivered(self, payment_id: str) -> Counter[str]:
        """What the receiver heard of a payment, with how often."""
        bodies = [json.loads(received.body) for received in self.background.receiver.received]
        return Counter(body["event"] for body in bodies if body["payment_id"] == payment_id)

    def pages(self, path: str, limit: int = 2) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.gateway.client.get(f"{path}?limit={limit}{cursor}").json()
            found.extend(page["data"])
            if not page["next_cursor"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def status(self, payment_id: str) -> str:
        status: str = self.gateway.client.get(f"/api/payments/{payment_id}").json()["status"]
        return status


@pytest.fixture
def world(start: Start, listen: Callable[..., Background], folder: Path) -> World:
    clock = SetClock(folder)
    gateway = start(**SETTINGS, **clock.settings)
    tenant, limited = gateway.register(), gateway.register("limited@example.com")
    gateway.act_for(tenant)
    path = f"/api/admin/users/{limited['tenant_id']}"
    gateway.client.patch(path, json={"rate_limit_tier": "high"}, headers=ADMIN).raise_for_status()
    gateway.end_velocity_rule("the-admin-key-of-the-tests")
    return World(gateway, listen(), clock, {"Authorization": f"Bearer {limited['api_key']}"})


def test_the_clock_is_set_back_an_hour_and_ahead_a_day(world: World, data_dir: Path) -> None:
    check_limit(world)
    world.background.receiver.answers = [500]
    waiting = world.gateway.pay(world.background.receiver.url, "waiting")
    wait_until(lambda: world.gateway.delivery(waiting)["last_error"] == "http_500")
    first = world.create("first")
    planned = world.create("planned", outcome={"status": "success", "after_seconds": 60}).json()["id"]

    world.clock.set(-HOUR)
    check_all_goes_on(world, "hour back", first)
    check_limit(world)
    wait_until(lambda: world.gateway.delivery(waiting)["status"] == "delivered", 20)
    assert world.status(planned) == "pending"

    world.clock.set(DAY)
    check_all_goes_on(world, "day ahead", first)
    check_limit(world)
    wait_until(lambda: world.status(planned) == "success", 10)
    wait_until(lambda: world.delivered(planned) == {"payment.success": 1}, 10)

    world.clock.set(0)
    check_all_goes_on(world, "right again", first)
    check_books(world, data_dir)


def check_all_goes_on(world: World, when: str, first: httpx.Response) -> None:
    """New payments, and one of before, are changed and told of; the repeat of a key gets its first answer."""
    client = world.gateway.client
    new = world.create(when).json()["id"]
    old = first.json()["id"]
    for payment_id in (old, new) if world.status(old) == "pending" else (new,):
        simulated = client.post(f"/api/payments/{payment_id}/simulate", json={"status": "success"})
        refunded = client.post(f"/api/payments/{payment_id}/refund", json={"refund_amount": 20, "reason": "torn"})
        assert (simulated.status_code, refunded.status_code) == (200, 200), refunded.text
        wait_until(lambda: world.delivered(payment_id) == {"payment.success": 1, "payment.refunded": 1}, 10)  # noqa: B023 - it is called here and now
    again = world.create("first")
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")


def check_limit(world: World) -> None:
    """A window of before is over, and in the one that begins the limit holds."""
    answers = [world.gateway.client.get("/api/payments", headers=world.limited) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert all(int(answer.headers["RateLimit-Reset"]) <= 900 for answer in answers)


def check_books(world: World, data_dir: Path) -> None:
    payments = [payment["id"] for payment in world.pages("/api/payments")]
    assert Counter(payments) == Counter(set(payments))
    assert len(payments) == 6
    wait_until(lambda: all(each["status"] == "delivered" for each in world.pages("/api/webhooks/deliveries")), 10)
    changes = [each for each in world.pages("/api/timeline", 30) if each["type"] == "status_change"]
    assert len(changes) == len({(each["payment_id"], each["new_status"]) for each in changes})
    verified = run("audit", "verify", MOCKPAY_DATA_DIR=str(data_dir), **world.clock.settings)
    assert verified.stdout == f"6 payments, {len(changes)} audit entries: intact\n"
