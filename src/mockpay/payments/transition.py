"""Payments move to their next states together, as they are created together.

It takes one statement to learn what is decided by, and one to write. The second one passes over what the first no
longer holds for. What is undecided then the caller does alone, under locks: a payment that changed meanwhile, one that
two requests of a batch are about, a key that another request took.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import link
from mockpay.context import Context
from mockpay.errors import ApiError, NotFound
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.payments import transition_store as store
from mockpay.payments.model import Change, Payment, TriggeredBy, apply
from mockpay.payments.recording import audit_content, new_delivery
from mockpay.payments.transition_store import Known, Moved, Place
from mockpay.payments.views import View
from mockpay.tenants.model import Tenant

CHANGED = 200
NO_PAYMENT = "There is no such payment."


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """What one client asks for. `view` shows it the payment as it is then."""

    tenant: Tenant
    payment_id: UUID
    change: Change
    triggered_by: TriggeredBy
    keyed: KeyedRequest | None
    view: View

    @property
    def place(self) -> Place:
        return self.tenant.id, self.payment_id

    def answer(self, payment: Payment) -> Answer:
        return Answer(CHANGED, exact_json.encode(self.view(payment)))


async def move_together(context: Context, asked: Sequence[Transition]) -> list[Answer | ApiError | None]:
    """For each, in their order, its answer, or why it is refused; None where that is undecided.

    All that is answered is durable. Of no tenant with fault rules: its webhooks may suffer from them.
    """
    now = context.clock.now()
    async with context.database.connection() as connection:  # each statement is a transaction by itself
        known = await store.facts(connection, [(*each.place, each.keyed.key if each.keyed else None) for each in asked])
        decided = [decide(context, each, facts, now) for each, facts in zip(asked, known, strict=True)]
        moved = _firsts([each for each in decided if isinstance(each, Moved)])
        written = await store.write(connection, moved, now) if moved else set()
    if any(each.delivery for each in moved):
        context.wake_worker()
    done = {each.place: each for each in moved if each.place in written}
    return [_outcome(each, done.get(each.place)) if isinstance(each, Moved) else each for each in decided]


def decide(context: Context, asked: Transition, known: Known, now: datetime) -> Answer | ApiError | Moved:
    if asked.keyed and known.stored:
        return known.stored.answer_to(asked.keyed)
    if known.payment is None:
        return NotFound(NO_PAYMENT)
    try:
        payment = apply(known.payment, asked.change, now)
    except ApiError as refusal:
        return refusal
    content = audit_content(context.new_id(), known.payment.status, payment, asked.triggered_by)
    return Moved(
        version=known.version,
        payment=payment,
        entry=link(content, known.head),
        keyed=asked.keyed,
        answer_body=asked.answer(payment).body,
        delivery=new_delivery(context, asked.tenant, payment),
    )


def _firsts(moved: Sequence[Moved]) -> list[Moved]:
    """One for each payment, and one for each key, in the order of the payments."""
    places: dict[Place, Moved] = {}
    keys: set[tuple[UUID, str]] = set()
    for each in moved:
        key = (each.place[0], each.keyed.key) if each.keyed else None
        if each.place in places or key in keys:
            continue
        places[each.place] = each
        if key:
            keys.add(key)
    return [places[place] for place in sorted(places)]


def _outcome(moved: Moved, done: Moved | None) -> Answer | None:
    """`done` is what was written of the same payment: this, or what another request of the batch asked for."""
    return Answer(CHANGED, moved.answer_body) if moved is done else None
