"""The routes of payments that are called most, served without the framework."""

from mockpay.context import Context
from mockpay.idempotency.model import Answer
from mockpay.payments import actions
from mockpay.payments.requests import CreatePayment, RefundPayment, SimulatePayment
from mockpay.tenants.model import Tenant
from mockpay.web.direct import DirectRequest, DirectRoute, Reply


async def create(context: Context, tenant: Tenant, request: DirectRequest) -> Reply:
    data = request.read(CreatePayment)
    return _reply(await actions.create(context, tenant, data, request.header(b"idempotency-key")))


async def get(context: Context, tenant: Tenant, request: DirectRequest) -> Reply:
    [payment_id] = request.values
    return _reply(await actions.get(context, tenant, payment_id))


async def simulate(context: Context, tenant: Tenant, request: DirectRequest) -> Reply:
    [payment_id] = request.values
    data = request.read(SimulatePayment)
    return _reply(await actions.simulate(context, tenant, payment_id, data, request.header(b"idempotency-key")))


async def refund(context: Context, tenant: Tenant, request: DirectRequest) -> Reply:
    [payment_id] = request.values
    data = request.read(RefundPayment)
    return _reply(await actions.refund(context, tenant, payment_id, data, request.header(b"idempotency-key")))


DIRECT_ROUTES = [
    DirectRoute("POST", "/api/payments", create),
    DirectRoute("GET", "/api/payments/{payment_id}", get),
    DirectRoute("POST", "/api/payments/{payment_id}/simulate", simulate),
    DirectRoute("POST", "/api/payments/{payment_id}/refund", refund),
]


def _reply(answer: Answer) -> Reply:
    return Reply(answer.status, answer.body, {"Idempotent-Replayed": "true"} if answer.replayed else {})
