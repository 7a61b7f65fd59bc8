"""Routes of payments: decode, call the service, encode."""

from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import HeaderParameter, JSONBody

from mockpay import errors
from mockpay.exact_json import encode
from mockpay.idempotency.model import MAX_KEY_LENGTH, Answer
from mockpay.payments import actions, service
from mockpay.payments.model import Status
from mockpay.payments.requests import (
    ChangePayment,
    CreatePayment,
    ListPayments,
    RefundPayment,
    SimulatePayment,
)
from mockpay.payments.views import (
    AuditView,
    DeliveriesView,
    PageView,
    PaymentView,
    RefundView,
    audit_view,
    deliveries_view,
    payment_view,
)
from mockpay.tenants.http import BODY_ERRORS, READ_ERRORS, TENANT_ROUTE, TenantDependency
from mockpay.types import CURRENCY_EXPONENTS, Currency, parse_time
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.pages import PageRequest, read_page
from mockpay.web.parameters import (
    CursorParameter,
    LimitParameter,
    QueryReader,
    one_of,
    path_id,
    path_uuid,
    query,
)

AnyRequest = Request[Any, Any, Any]
PaymentId = Annotated[str, path_uuid()]
_KEY_DESCRIPTION = f"1 to {MAX_KEY_LENGTH} printable ASCII characters. A repeat under it gets the first answer again."
_KEY_SCHEMA = {"type": OpenAPIType.STRING, "one_of": None, "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"}
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(name="Idempotency-Key", required=False, description=_KEY_DESCRIPTION, schema_extra=_KEY_SCHEMA),
]
PAYMENT_ROUTE = {**TENANT_ROUTE, "tags": ["payments"]}
ONE_ERRORS = (errors.InvalidRequest, errors.NotFound, *READ_ERRORS)
WRITE_ERRORS = (*BODY_ERRORS, errors.IdempotencyKeyReused, *READ_ERRORS)
CHANGE_ERRORS = (*WRITE_ERRORS, errors.NotFound, errors.InvalidTransition)


@post(
    "/api/payments",
    dto=StrictBody.of(CreatePayment),
    return_dto=None,
    summary="Create a payment",
    responses=error_answers(*WRITE_ERRORS, errors.IdempotencyKeyMissing),
    **PAYMENT_ROUTE,
)
async def create_payment(
    data: JSONBody[CreatePayment],
    tenant: TenantDependency,
    context: ContextDependency,
    idempotency_key: IdempotencyKey = None,
) -> Response[PaymentView]:
    """Runs the fraud rules: the payment starts as `pending`, or as `flagged`."""
    return _respond(await actions.create(context, tenant, data, idempotency_key))


@get(
    "/api/payments",
    summary="List payments, newest first",
    responses=error_answers(errors.InvalidRequest, *READ_ERRORS),
    **PAYMENT_ROUTE,
)
async def list_payments(
    request: AnyRequest,
    tenant: TenantDependency,
    context: ContextDependency,
    limit: LimitParameter = None,
    cursor: CursorParameter = None,
    status: Annotated[str | None, query("Only payments in this status.", enum=list(Status))] = None,
    currency: Annotated[str | None, query("Only payments in this currency.", enum=sorted(CURRENCY_EXPONENTS))] = None,
    created_from: Annotated[str | None, query("RFC 3339, inclusive.", format="date-time")] = None,
    created_to: Annotated[str | None, query("RFC 3339, exclusive.", format="date-time")] = None,
) -> Response[PageView]:
    """`total` is the number of payments in this page."""
    asked, query = _list_query(request)
    page = asked.cut(await service.page(context, tenant, query))
    view = PageView(
        data=[payment_view(payment) for payment in page.rows],
        total=len(page.rows),
        has_more=page.next_cursor is not None,
        next_cursor=page.next_cursor,
    )
    return json_response(encode(view), 200)


@get(
    "/api/payments/{payment_id:str}",
    summary="Read one payment",
    responses=error_answers(*ONE_ERRORS),
    **PAYMENT_ROUTE,
)
async def get_payment(
    payment_id: PaymentId, tenant: TenantDependency, context: ContextDependency
) -> Response[PaymentView]:
    return _respond(await actions.get(context, tenant, payment_id))


@patch(
    "/api/payments/{payment_id:str}",
    dto=StrictBody.of(ChangePayment),
    return_dto=None,
    summary="Change a payment's webhook URL, description or metadata",
    responses=error_answers(*BODY_ERRORS, *ONE_ERRORS),
    **PAYMENT_ROUTE,
)
async def change_payment(
    payment_id: PaymentId, data: JSONBody[ChangePayment], tenant: TenantDependency, context: ContextDependency
) -> Response[PaymentView]:
    """In any status. What is left out stays as it is, `null` takes it away, and `metadata` is replaced as a whole.

    Webhooks that are queued already go where they were addressed; replay one to send it to the new URL.
    """
    payment = await service.edit(context, tenant, path_id("payment_id", payment_id), data)
    return json_response(encode(payment_view(payment)), 200)


@post(
    "/api/payments/{payment_id:str}/simulate",
    dto=StrictBody.of(SimulatePayment),
    return_dto=None,
    status_code=200,
    summary="Let a pending payment succeed or fail",
    responses=error_answers(*CHANGE_ERRORS),
    **PAYMENT_ROUTE,
)
async def simulate_payment(
    payment_id: PaymentId,
    data: JSONBody[SimulatePayment],
    tenant: TenantDependency,
    context: ContextDependency,
    idempotency_key: IdempotencyKey = None,
) -> Response[PaymentView]:
    return _respond(await actions.simulate(context, tenant, payment_id, data, idempotency_key))


@post(
    "/api/payments/{payment_id:str}/refund",
    dto=StrictBody.of(RefundPayment),
    return_dto=None,
    status_code=200,
    summary="Refund a successful payment, wholly or in part",
    responses=error_answers(*CHANGE_ERRORS),
    **PAYMENT_ROUTE,
)
async def refund_payment(
    payment_id: PaymentId,
    data: JSONBody[RefundPayment],
    tenant: TenantDependency,
    context: ContextDependency,
    idempotency_key: IdempotencyKey = None,
) -> Response[RefundView]:
    return _respond(await actions.refund(context, tenant, payment_id, data, idempotency_key))


@get(
    "/api/payments/{payment_id:str}/audit",
    summary="Read a payment's audit trail",
    responses=error_answers(*ONE_ERRORS),
    **PAYMENT_ROUTE,
)
async def audit_payment(
    payment_id: PaymentId, tenant: TenantDependency, context: ContextDependency
) -> Response[AuditView]:
    """`intact` says whether the trail's hash chain, recomputed for this answer, holds."""
    history = await service.history(context, tenant, path_id("payment_id", payment_id))
    return json_response(encode(audit_view(*history)), 200)


@get(
    "/api/payments/{payment_id:str}/deliveries",
    summary="Read a payment's webhook deliveries, with every attempt",
    responses=error_answers(*ONE_ERRORS),
    **PAYMENT_ROUTE,
)
async def payment_deliveries(
    payment_id: PaymentId, tenant: TenantDependency, context: ContextDependency
) -> Response[DeliveriesView]:
    found = await service.deliveries(context, tenant, path_id("payment_id", payment_id))
    return json_response(encode(deliveries_view(*found)), 200)


ROUTES = [
    create_payment,
    list_payments,
    get_payment,
    change_payment,
    simulate_payment,
    refund_payment,
    audit_payment,
    payment_deliveries,
]


def _respond(answer: Answer) -> Response[Any]:
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
    return json_response(answer.body, answer.status, headers)


def _list_query(request: AnyRequest) -> tuple[PageRequest, ListPayments]:
    reader = QueryReader(request.query_params.multi_items(), ListPayments.__struct_fields__)
    asked = read_page(reader, "payments")
    query = ListPayments(
        limit=asked.size,
        cursor=asked.after,
        status=reader.read("status", one_of(Status), None),
        currency=reader.read("currency", Currency.parse, None),
        created_from=reader.read("created_from", parse_time, None),
        created_to=reader.read("created_to", parse_time, None),
    )
    reader.finish()
    return asked, query
