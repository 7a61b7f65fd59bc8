"""What a change of a payment leaves behind: an entry of its audit trail, and the webhook that tells of it."""

from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import Content
from mockpay.audit.facts import facts_of
from mockpay.context import Context
from mockpay.faults.service import fault_of_webhook
from mockpay.payments.events import NAMES, event_body
from mockpay.payments.model import Payment, Status, TriggeredBy
from mockpay.postgres.pool import Connection
from mockpay.tenants.model import Tenant
from mockpay.webhooks import store as webhooks


def audit_content(entry_id: UUID, before: Status | None, after: Payment, triggered_by: TriggeredBy) -> Content:
    """Of the change to what the payment now is; `before` is None for its creation."""
    return Content(
        id=entry_id,
        tenant_id=after.tenant_id,
        payment_id=after.id,
        old_status=before.value if before else None,
        new_status=after.status.value,
        triggered_by=triggered_by.value,
        metadata=audit_facts(after),
        created_at=after.updated_at,
    )


async def queue_webhook(context: Context, connection: Connection, tenant: Tenant, payment: Payment) -> None:
    """In the transaction of the change, if its status is news and somebody wants to hear of it."""
    delivery = new_delivery(context, tenant, payment)
    if delivery is None:
        return
    suffers = await fault_of_webhook(connection, tenant, NAMES[payment.status])
    if suffers:
        delivery = msgspec.structs.replace(
            delivery, fault=suffers.fault, fault_rule=suffers.rule_id, fault_seed=suffers.seed
        )
    await webhooks.enqueue(connection, delivery)


def audit_facts(payment: Payment) -> dict[str, str]:
    return facts_of(
        amount_minor_units=payment.money.minor_units,
        currency=payment.money.currency,
        refund_minor_units=payment.refund.minor_units if payment.refund else None,
        refund_reason=payment.refund_reason,
        failure_code=payment.failure_code,
        flag_rule=payment.flag_rule,
        flag_reason=payment.flag_reason,
    )


def new_delivery(context: Context, tenant: Tenant, payment: Payment) -> webhooks.NewDelivery | None:
    """Of the event that is the payment's status. None if its status is no news, or nobody wants to hear of it."""
    url = payment.webhook_url or tenant.webhook_url
    if not url or payment.status not in NAMES:
        return None
    event_id = context.new_id()
    body = event_body(payment, event_id)
    return webhooks.NewDelivery(
        tenant_id=payment.tenant_id,
        id=context.new_id(),
        payment_id=payment.id,
        event_id=event_id,
        event=body.event,
        url=url,
        payload=exact_json.encode(body),
        max_attempts=context.settings.webhook_attempts,
        created_at=payment.updated_at,
    )
