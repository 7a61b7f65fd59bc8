"""Each fault of webhooks on the wire, by a plain socket: what the receiver gets, and what the log says was sent."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mockpay.webhooks.signing import sign, standard_webhooks_secret, verify, verify_standard
from mockpay.webhooks.tampering import Tampering
from tests.acceptance.conftest import Start
from tests.support.processes import Gateway, wait_until
from tests.support.wire import Arrived, Wire

ADMIN_KEY = "the-admin-key-of-the-test"


@pytest.fixture
def wire() -> Iterator[Wire]:
    opened = Wire()
    yield opened
    opened.close()


class Bench:
    """A gateway, a receiver on a socket, and what a test does with them."""

    def __init__(self, gateway: Gateway, wire: Wire) -> None:
        self.gateway = gateway
        self.wire = wire
        self.secret: str = gateway.register()["webhook_secret"]
        self.payments = 0

    def with_fault(self, fault: str, **fields: Any) -> dict[str, Any]:
        """The delivery of one payment that succeeds, when it is over, with a rule that makes it suffer."""
        self.wire.forget()
        self.gateway.client.delete("/api/faults")
        made = self.gateway.client.post("/api/faults", json={"fault": fault, "event": "payment.success", **fields})
        assert made.status_code == 201, made.text
        self.payments += 1
        payment_id = self.gateway.pay(self.wire.url, f"key-{self.payments}")
        delivery = self.finished(payment_id)
        assert self.gateway.client.get(f"/api/payments/{payment_id}").json()["status"] == "success"
        assert delivery["fault_rule"] == made.json()["id"]
        return delivery

    def finished(self, payment_id: str) -> dict[str, Any]:
        wait_until(lambda: self.gateway.delivery(payment_id)["status"] != "pending", 20)
        return self.gateway.delivery(payment_id)

    def is_signed(self, arrived: Arrived, secret: str | None = None) -> tuple[bool, bool]:
        """By MockPay's scheme, and by that of Standard Webhooks."""
        headers = arrived.headers
        return verify(arrived.body, headers["x-mockpay-signature"], secret or self.secret), verify_standard(
            arrived.body,
            headers["webhook-id"],
            int(headers["webhook-timestamp"]),
            headers["webhook-signature"],
            secret or self.secret,
        )


@pytest.fixture
def bench(start: Start, wire: Wire) -> Bench:
    gateway = start(
        MOCKPAY_RATE_LIMIT_TIER="unlimited", MOCKPAY_WEBHOOK_BACKOFF_SECONDS="0.1", MOCKPAY_ADMIN_KEY=ADMIN_KEY
    )
    gateway.end_velocity_rule(ADMIN_KEY)
    return Bench(gateway, wire)


def test_every_fault(bench: Bench) -> None:
    """One after the other on one server, since starting it is what takes time."""
    checks = {
        Tampering.DUPLICATE: check_duplicate, Tampering.DELAY: check_delay, Tampering.REORDER: check_reorder,
        Tampering.DROP: check_drop, Tampering.BAD_SIGNATURE: check_bad_signature, Tampering.OLD_SECRET: check_old_secret,
        Tampering.STALE_TIMESTAMP: check_stale_timestamp, Tampering.TRUNCATED_BODY: check_truncated_body,
        Tampering.MUTATED_BODY: check_mutated_body, Tampering.WRONG_CONTENT_TYPE: check_wrong_content_type,
        Tampering.SLOW_BODY: check_slow_body,
    }  # fmt: skip
    assert list(checks) == list(Tampering)
    for check in checks.values():
        check(bench)
    assert "Traceback" not in bench.gateway.output
    [line] = [line for line in bench.gateway.output.splitlines() if "truncated_body" in line]
    assert "webhook pending" in line


def check_duplicate(bench: Bench) -> None:
    delivery = bench.with_fault("duplicate; copies=3")
    arrived = bench.wire.wait_for(4)
    assert len({(each.body, each.headers["x-mockpay-delivery"], each.headers["webhook-id"]) for each in arrived}) == 1
    assert all(bench.is_signed(each) == (True, True) for each in arrived)
    assert (delivery["status"], delivery["attempts"]) == ("delivered", 1)
    assert [(each["attempt"], each["copy"], each["response_status"]) for each in delivery["attempt_log"]] == [
        (1, copy, 200) for copy in range(4)
    ]


def check_delay(bench: Bench) -> None:
    delivery = bench.with_fault("delay; seconds=0.6-0.9", seed=7)
    [attempt] = delivery["attempt_log"]
    waited = seconds_between(delivery["created_at"], attempt["started_at"])
    drawn = float(delivery["fault"].removeprefix("delay; seconds="))
    assert 0.6 <= drawn <= 0.9
    assert drawn <= waited < drawn + 1
    assert bench.is_signed(bench.wire.arrived[0]) == (True, True)
    assert abs(int(bench.wire.arrived[0].headers["webhook-timestamp"]) - time.time()) < 5
    assert bench.with_fault("delay; seconds=0.6-0.9", seed=7)["fault"] == delivery["fault"]


def check_reorder(bench: Bench) -> None:
    """A refund is heard of before the success."""
    bench.wire.forget()
    bench.gateway.client.delete("/api/faults")
    bench.gateway.client.post("/api/faults", json={"fault": "reorder; seconds=20"})
    payment_id = bench.gateway.pay(bench.wire.url, "reordered")
    time.sleep(0.5)
    assert bench.wire.arrived == []
    refund = bench.gateway.client.post(f"/api/payments/{payment_id}/refund", json={"refund_amount": 5})
    assert refund.status_code == 200
    events = [each.headers["x-mockpay-event"] for each in bench.wire.wait_for(2)]
    assert events == ["payment.refunded", "payment.success"]
    bench.wire.forget()
    bench.wire.answers = [500]  # the refund has to get there, before what was held back follows
    payment_id = bench.gateway.pay(bench.wire.url, "reordered and refused")
    bench.gateway.client.post(f"/api/payments/{payment_id}/refund", json={"refund_amount": 5})
    events = [each.headers["x-mockpay-event"] for each in bench.wire.wait_for(3)]
    assert events == ["payment.refunded", "payment.refunded", "payment.success"]
    alone = bench.with_fault("reorder; seconds=0.4")  # with no event after it, it comes when its time is over
    assert seconds_between(alone["created_at"], alone["attempt_log"][0]["started_at"]) >= 0.4


def check_drop(bench: Bench) -> None:
    delivery = bench.with_fault("drop; attempts=2")
    [arrived] = bench.wire.arrived
    assert arrived.headers["x-mockpay-attempt"] == "3"
    assert [each["error"] for each in delivery["attempt_log"]] == ["dropped", "dropped", None]
    lost = bench.with_fault("drop; attempts=100")
    assert (lost["status"], lost["last_error"], bench.wire.arrived) == ("dead", "dropped", [])
    bench.gateway.client.post(f"/api/webhooks/deliveries/{lost['id']}/replay")
    [replayed] = bench.wire.wait_for(1)  # always as it should be
    assert replayed.headers["x-mockpay-delivery"] == lost["id"]


def spoilt_once(bench: Bench, fault: str) -> tuple[Arrived, dict[str, Any]]:
    """What arrived first. A receiver that refuses it gets what it should have got; the log holds both."""
    bench.wire.answers = [400]
    delivery = bench.with_fault(fault)
    first, second = bench.wire.wait_for(2)
    assert bench.is_signed(second) == (True, True)
    assert second.headers["content-type"] == "application/json"
    assert json.loads(second.body)["amount"] == 49.99
    spoilt, right = delivery["attempt_log"]
    assert (spoilt["fault"], right["fault"], right["sent"]) == (delivery["fault"], None, None)
    assert spoilt["sent"]["body"] == first.body.decode()
    assert {name.lower(): value for name, value in spoilt["sent"]["headers"].items()}.items() <= first.headers.items()
    return first, delivery


def check_bad_signature(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "bad_signature")
    assert bench.is_signed(first) == (False, False)
    assert json.loads(first.body)["status"] == "success"


def check_old_secret(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "old_secret")  # never rotated: it is a secret that nobody has
    assert bench.is_signed(first) == (False, False)
    old = bench.secret
    bench.secret = bench.gateway.client.post("/api/auth/rotate-webhook-secret").json()["webhook_secret"]
    first, _ = spoilt_once(bench, "old_secret")
    assert bench.is_signed(first) == (False, False)
    assert bench.is_signed(first, old) == (True, True)
    assert first.headers["x-mockpay-signature"] == sign(first.body, old)
    assert standard_webhooks_secret(old)


def check_stale_timestamp(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "stale_timestamp; seconds=3000")
    assert bench.is_signed(first) == (True, True)
    assert 2990 < time.time() - int(first.headers["webhook-timestamp"]) < 3030


def check_truncated_body(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "truncated_body")
    assert bench.is_signed(first) == (False, False)
    with pytest.raises(json.JSONDecodeError):
        json.loads(first.body)


def check_mutated_body(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "mutated_body")
    assert bench.is_signed(first) == (False, False)
    assert json.loads(first.body)["amount"] == 949.99


def check_wrong_content_type(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "wrong_content_type")
    assert first.headers["content-type"] == "text/plain"
    assert bench.is_signed(first) == (True, True)


def check_slow_body(bench: Bench) -> None:
    first, _ = spoilt_once(bench, "slow_body; seconds=0.8")
    assert len(first.times) > 5
    assert first.times[-1] - first.started >= 0.7
    assert bench.is_signed(first) == (True, True)


def seconds_between(earlier: str, later: str) -> float:
    return (moment(later) - moment(earlier)).total_seconds()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
