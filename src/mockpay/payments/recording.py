"""What a change of a payment leaves behind: an entry of its audit trail, and the webhook that tells of it."""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import Content
from mockpay.audit.facts import facts_of
from mockpay.context import Context
from mockpay.errors import ApiError
from mockpay.events import Event
from mockpay.faults.rules import Asking, Counted
from mockpay.faults.service import asking_about_webhooks, fault_of_webhook, give_way
from mockpay.idempotency.model import Answer
from mockpay.payments.events import NAMES, event_body
from mockpay.payments.model import Payment, Status, TriggeredBy
from mockpay.postgres.pool import Connection
from mockpay.webhooks.store import NewDelivery


class Attempt(msgspec.Struct, frozen=True):
    """Tells what became of each request of a batch, in their order; None where nothing is decided.

    `is_news` says that a webhook was queued.
    """

    answers: list[Answer | ApiError | None]
    is_news: bool


def audit_content(entry_id: UUID, before: Status | None, after: Payment, triggered_by: TriggeredBy) -> Content:
    """Returns what the trail says of the change to what the payment now is. `before` is None for its creation."""
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


async def asked_about(
    context: Context, connection: Connection, deliveries: Sequence[NewDelivery | None], with_faults: Collection[UUID]
) -> tuple[list[NewDelivery | None], list[Counted]]:
    """Asks the fault rules of the tenants `with_faults` about their webhooks, in their order.

    Returns the deliveries with what they suffer, and what the rules are to count if that is written.
    """
    concerned = [each for each in deliveries if each and each.tenant_id in with_faults]
    if not concerned or not context.settings.faults_are_on:
        return list(deliveries), []
    asking = await asking_about_webhooks(connection, [(each.tenant_id, Event(each.event)) for each in concerned])
    found: list[NewDelivery | None] = []
    for each in deliveries:
        found.append(_suffering(each, asking) if each and each.tenant_id in with_faults else each)
        await give_way(asking)
    return found, asking.counted


def _suffering(delivery: NewDelivery, asking: Asking) -> NewDelivery:
    suffers = fault_of_webhook(asking, delivery.tenant_id, Event(delivery.event))
    if suffers is None:
        return delivery
    return msgspec.structs.replace(delivery, fault=suffers.fault, fault_rule=suffers.rule_id, fault_seed=suffers.seed)


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


def new_delivery(context: Context, payment: Payment, default_url: str | None) -> NewDelivery | None:
    """Returns the delivery that tells of the payment's status; None if that is no news, or nobody wants to hear of it.

    `default_url` is where the tenant's webhooks go if the payment does not say otherwise.
    """
    url = payment.webhook_url or default_url
    if not url or payment.status not in NAMES:
        return None
    event_id = context.new_id()
    body = event_body(payment, event_id)
    return NewDelivery(
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
