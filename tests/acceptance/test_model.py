"""Random walks of several tenants over all that can be done to payments, beside a model that says what should be."""

import uuid
from typing import Any, Final, cast

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test

from tests.acceptance.conftest import Start
from tests.support.model import Model, Payment, money
from tests.support.processes import Gateway

TENANTS: Final = 2
ONES = st.integers(0, TENANTS - 1)
KEYS = st.sampled_from("abcdefgh")
KEYS_OR_NONE = st.none() | KEYS
AMOUNTS = st.sampled_from([1, 100, 4999, 10_000_000, 10_000_001])


class Walk(RuleBasedStateMachine):
    """Tenants are new for each walk, so that nothing is left of the ones before."""

    names = Bundle("names")
    gateway: Gateway  # of the subclass that the test makes

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.first_answers: dict[tuple[int, str], bytes] = {}
        self.tenants = [self.gateway.register(f"{uuid.uuid4()}@example.com") for _ in range(TENANTS)]

    def ask(self, tenant: int, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tenants[tenant]['api_key']}"}
        if key:
            headers["Idempotency-Key"] = key
        return self.gateway.client.request(method, f"/api/payments{path}", headers=headers, **more)

    def compare(self, tenant: int, key: str | None, expected: str, answer: httpx.Response) -> None:
        """Also that a repeat is told what the first one was, to the byte."""
        if answer.is_success:
            told = "replayed" if answer.headers.get("Idempotent-Replayed") else "done"
        else:
            told = answer.json()["code"]
        assert told == expected, answer.text
        if key and answer.is_success:
            assert self.first_answers.setdefault((tenant, key), answer.content) == answer.content

    @rule(target=names, tenant=ONES, key=KEYS, amount=AMOUNTS, has_webhook=st.booleans())
    def create(self, tenant: int, key: str, amount: int, has_webhook: bool) -> Any:
        expected, payment = self.model.create(tenant, key, amount, has_webhook=has_webhook)
        body = {
            "amount": money(amount),
            "currency": "USD",
            "webhook_url": "http://127.0.0.1:9/" if has_webhook else None,
        }
        answer = self.ask(tenant, "POST", "", key, json=body)
        self.compare(tenant, key, expected, answer)
        if payment is None:
            return multiple()
        name = answer.json()["id"]
        self.model.payments[name] = payment
        return name

    @rule(name=names, tenant=ONES, key=KEYS_OR_NONE, status=st.sampled_from(["success", "success", "failed"]))
    def simulate(self, name: str, tenant: int, key: str | None, status: str) -> None:
        expected = self.model.simulate(tenant, name, key, status)
        self.compare(tenant, key, expected, self.ask(tenant, "POST", f"/{name}/simulate", key, json={"status": status}))

    @rule(name=names, tenant=ONES, key=KEYS_OR_NONE, amount=AMOUNTS)
    def refund(self, name: str, tenant: int, key: str | None, amount: int) -> None:
        expected = self.model.refund(tenant, name, key, amount)
        body = {"refund_amount": money(amount)}
        self.compare(tenant, key, expected, self.ask(tenant, "POST", f"/{name}/refund", key, json=body))

    @rule(target=names, tenant=ONES)
    def create_many(self, tenant: int) -> Any:
        """Enough for the velocity rule."""
        made = [self.create(tenant, key, 4999, has_webhook=True) for key in ("v1", "v2", "v3", "v4")]
        return multiple(*(name for name in made if isinstance(name, str)))

    @rule(name=names, key=KEYS_OR_NONE)
    def succeed_and_refund_all(self, name: str, key: str | None) -> None:
        """What chance alone seldom comes to."""
        payment = self.model.payments[name]
        self.simulate(name, payment.tenant, None, "success")
        self.refund(name, payment.tenant, key, payment.amount)

    @rule(name=names, tenant=ONES, description=st.sampled_from(["", "new", "déjà vu"]))
    def edit(self, name: str, tenant: int, description: str) -> None:
        answer = self.ask(tenant, "PATCH", f"/{name}", json={"description": description})
        payment = self.model.payments[name]
        assert answer.status_code == (200 if payment.tenant == tenant else 404), answer.text
        if payment.tenant == tenant:
            payment.description = description

    @rule(name=names, tenant=ONES)
    def look(self, name: str, tenant: int) -> None:
        """At the payment, its trail and its webhooks."""
        payment = self.model.payments[name]
        answers = [self.ask(tenant, "GET", f"/{name}{path}") for path in ("", "/audit", "/deliveries")]
        if payment.tenant != tenant:
            assert {answer.status_code for answer in answers} == {404}
            return
        shown, trail, sent = (answer.json() for answer in answers)
        assert as_shown(payment) == {field: shown[field] for field in as_shown(payment)}
        assert trail["intact"] is True
        assert [entry["new_status"] for entry in trail["history"]] == payment.history
        assert [each["event"] for each in sent["deliveries"]] == payment.events

    @rule(tenant=ONES, status=st.none() | st.sampled_from(["pending", "flagged", "success", "refunded"]))
    def page(self, tenant: int, status: str | None) -> None:
        params = {"limit": "100"} | ({"status": status} if status else {})
        listed = [payment["id"] for payment in self.ask(tenant, "GET", "", params=params).json()["data"]]
        assert sorted(listed) == sorted(
            name for name, payment in self.model.payments.items()
            if payment.tenant == tenant and status in (None, payment.status)
        )  # fmt: skip

    def teardown(self) -> None:
        for name, payment in self.model.payments.items():
            self.look(name, payment.tenant)


def as_shown(payment: Payment) -> dict[str, object]:
    return {
        "amount": float(money(payment.amount)), "status": payment.status, "description": payment.description,
        "refund_amount": None if payment.refund is None else float(money(payment.refund)),
    }  # fmt: skip


def test_any_sequence_of_requests_does_what_the_model_says(start: Start) -> None:
    class OfGateway(Walk):
        gateway = start(MOCKPAY_RATE_LIMIT_TIER="unlimited", MOCKPAY_LOG_LEVEL="warning")

    thorough = settings.default is settings.get_profile("thorough")
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", OfGateway),
        settings=settings(
            max_examples=1000 if thorough else 20, derandomize=not thorough, stateful_step_count=25, deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink takes minutes, on a real server
        ),
    )  # fmt: skip
