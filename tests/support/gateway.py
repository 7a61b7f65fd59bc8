"""The payment service as the tests call it."""

import uuid
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec

from mockpay.context import Context
from mockpay.idempotency.model import Answer, keyed_request
from mockpay.payments import service as payments
from mockpay.payments.model import Change, Fail, Payment, Refund, Succeed, TriggeredBy
from mockpay.payments.requests import CreatePayment
from mockpay.payments.views import payment_view, refund_view
from mockpay.postgres.pool import Connection
from mockpay.tenants.model import Tenant
from mockpay.types import Amount, Currency
from mockpay.webhooks.address import AddressGuard, WebhookUrl
from mockpay.webhooks.resolver import Lookups
from mockpay.webhooks.worker import Worker
from tests.support.fakes import Receiver


@dataclass
class Gateway:
    """The service, with what the tests never vary filled in."""

    context: Context
    tenant: Tenant
    receiver: Receiver

    async def create(self, key: str, *, amount: str = "50", webhook: bool = True) -> Payment:
        request = CreatePayment(
            Amount(amount), Currency("USD"), webhook_url=WebhookUrl(self.receiver.url) if webhook else None
        )
        keyed = keyed_request(key, "create", request)
        answer = await payments.create(self.context, self.tenant, request, keyed)
        return await payments.get(self.context, self.tenant, _id_in(answer))

    async def change(self, payment: Payment, what: Change) -> Payment:
        view = refund_view if isinstance(what, Refund) else payment_view
        trigger = TriggeredBy.REFUND_API if isinstance(what, Refund) else TriggeredBy.SIMULATE_API
        await payments.change(self.context, self.tenant, payment.id, what, trigger, None, view)
        return await payments.get(self.context, self.tenant, payment.id)

    async def succeeded(self, key: str) -> Payment:
        return await self.succeeded_of(await self.create(key))

    async def succeeded_of(self, payment: Payment) -> Payment:
        return await self.change(payment, Succeed())

    async def failed(self, key: str) -> Payment:
        return await self.change(await self.create(key), Fail())

    def worker(self, guard: AddressGuard | None = None, *, lookups: Lookups | None = None, **changes: Any) -> Worker:
        return Worker(
            settings=replace(self.context.settings, **changes),
            database=self.context.database,
            guard=guard or self.context.address_guard,
            clock=self.context.clock,
            telemetry=self.context.telemetry,
            jitter=lambda: 0.0,
            lookups=lookups,
        )


async def register(client: httpx.AsyncClient, email: str = "api@example.com") -> str:
    """A new tenant's key, which the client then uses."""
    response = await client.post("/api/auth/register", json={"name": "Api", "email": email})
    assert response.status_code == 201, response.text
    api_key: str = response.json()["api_key"]
    client.headers["Authorization"] = f"Bearer {api_key}"
    return api_key


async def check_payloads(superuser: Connection) -> None:
    """Each webhook tells of its own payment and event."""
    for row in await superuser.fetch("SELECT payment_id, event_id, event, payload FROM webhook_deliveries"):
        body = msgspec.json.decode(row["payload"])
        assert (body["payment_id"], body["event_id"]) == (str(row["payment_id"]), str(row["event_id"]))
        assert body["event"] == row["event"]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _id_in(answer: Answer) -> uuid.UUID:
    return uuid.UUID(msgspec.json.decode(answer.body)["id"])
