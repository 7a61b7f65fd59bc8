"""The contract of payments, as a model small enough to be read at once. Nothing is stored, nothing is sent."""

from dataclasses import dataclass, field
from typing import Final

VELOCITY: Final = 5
LIMIT: Final = 10_000_000  # in cents
EVENTS: Final = {
    "flagged": "fraud.detected", "success": "payment.success", "failed": "payment.failed",
    "refunded": "payment.refunded", "partially_refunded": "payment.refunded",
}  # fmt: skip


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


@dataclass
class Payment:
    tenant: int
    amount: int
    has_webhook: bool
    history: list[str]
    refund: int | None = None
    description: str | None = None

    @property
    def status(self) -> str:
        return self.history[-1]

    @property
    def events(self) -> list[str]:
        return [EVENTS[status] for status in self.history if self.has_webhook and status in EVENTS]


@dataclass
class Model:
    """Each act returns what a client is told: `done`, `replayed`, or the code of an error."""

    payments: dict[str, Payment] = field(default_factory=dict)
    keys: dict[tuple[int, str], tuple[object, ...]] = field(default_factory=dict)

    def create(self, tenant: int, key: str, amount: int, *, has_webhook: bool) -> tuple[str, Payment | None]:
        """`done` comes with a payment that is to be put under its id."""
        if told := self._repeat(tenant, key, "create", amount, has_webhook):
            return told, None
        counted = [each for each in self.payments.values() if each.tenant == tenant and each.status != "failed"]
        flagged = len(counted) >= VELOCITY or amount > LIMIT
        self._keep(tenant, key, "create", amount, has_webhook)
        return "done", Payment(tenant, amount, has_webhook, ["flagged" if flagged else "pending"])

    def simulate(self, tenant: int, name: str, key: str | None, status: str) -> str:
        return self._move(tenant, name, key, "pending", status, ("simulate", name, status))

    def refund(self, tenant: int, name: str, key: str | None, amount: int) -> str:
        payment = self.payments[name]
        status = "refunded" if amount == payment.amount else "partially_refunded"
        told = self._move(
            tenant, name, key, "success", status, ("refund", name, amount), too_much=amount > payment.amount
        )
        if told == "done":
            payment.refund = amount
        return told

    def _move(
        self, tenant: int, name: str, key: str | None, before: str, after: str, asked: tuple[object, ...], *,
        too_much: bool = False,
    ) -> str:  # fmt: skip
        payment = self.payments[name]
        if told := self._repeat(tenant, key, *asked):
            return told
        if payment.tenant != tenant:
            return "not_found"
        if payment.status != before:
            return "invalid_transition"
        if too_much:
            return "invalid_request"
        payment.history.append(after)
        self._keep(tenant, key, *asked)
        return "done"

    def _repeat(self, tenant: int, key: str | None, *asked: object) -> str | None:
        first = None if key is None else self.keys.get((tenant, key))
        if first is None:
            return None
        return "replayed" if first == asked else "idempotency_key_reused"

    def _keep(self, tenant: int, key: str | None, *asked: object) -> None:
        if key is not None:
            self.keys[tenant, key] = asked
