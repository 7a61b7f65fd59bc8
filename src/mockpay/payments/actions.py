"""What a request does, whichever way it came: by the framework, or directly. From what was sent to an answer."""

import msgspec

from mockpay.context import Context
from mockpay.errors import Fault, IdempotencyKeyMissing, InvalidRequest
from mockpay.exact_json import encode
from mockpay.idempotency.model import MAX_KEY_LENGTH, Answer, KeyedRequest, is_valid_key, keyed_request
from mockpay.payments import service
from mockpay.payments.model import Change, Fail, Refund, SimulatedStatus, Succeed, TriggeredBy
from mockpay.payments.requests import CreatePayment, RefundPayment, SimulatePayment
from mockpay.payments.views import payment_view, refund_view
from mockpay.tenants.model import Tenant
from mockpay.web.parameters import path_id


async def create(context: Context, tenant: Tenant, data: CreatePayment, key: str | None) -> Answer:
    if key is None:
        raise IdempotencyKeyMissing
    return await service.create(context, tenant, data, _keyed(key, "create", data))


async def get(context: Context, tenant: Tenant, payment_id: str) -> Answer:
    payment = await service.get(context, tenant, path_id("payment_id", payment_id))
    return Answer(200, encode(payment_view(payment)))


async def simulate(context: Context, tenant: Tenant, payment_id: str, data: SimulatePayment, key: str | None) -> Answer:
    id_ = path_id("payment_id", payment_id)
    keyed = None if key is None else _keyed(key, f"simulate {id_}", data)
    return await service.change(context, tenant, id_, _simulated(data), TriggeredBy.SIMULATE_API, keyed, payment_view)


async def refund(context: Context, tenant: Tenant, payment_id: str, data: RefundPayment, key: str | None) -> Answer:
    id_ = path_id("payment_id", payment_id)
    keyed = None if key is None else _keyed(key, f"refund {id_}", data)
    change = Refund(data.refund_amount, data.reason)
    return await service.change(context, tenant, id_, change, TriggeredBy.REFUND_API, keyed, refund_view)


def _keyed(key: str, operation: str, data: msgspec.Struct) -> KeyedRequest:
    key = key.strip(" ")
    if not is_valid_key(key):
        message = f"must be 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        raise InvalidRequest([Fault("Idempotency-Key", message)])
    return keyed_request(key, operation, data)


def _simulated(data: SimulatePayment) -> Change:
    match data.status:
        case SimulatedStatus.SUCCESS:
            return Succeed()
        case SimulatedStatus.FAILED:
            return Fail() if data.failure_code is msgspec.UNSET else Fail(data.failure_code)
