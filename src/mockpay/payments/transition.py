"""Payments move to their next states together, as they are created together.

It takes one statement to learn what is decided by, and one to write; where webhooks may suffer faults by a rule, one
more reads the rules. The writing one passes over what the facts no longer hold for. What is undecided then is done
alone, under locks: a payment that changed meanwhile, one that two requests of a batch are about, a key that another
request took, a fault rule that another process asked.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import link
from mockpay.context import Context
from mockpay.errors import ApiError, NotFound
from mockpay.faults import store as fault_rules
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.payments import transition_store as store
from mockpay.payments.model import Change, Payment, TriggeredBy, apply
from mockpay.payments.recording import Attempt, asked_about, audit_content, new_delivery
from mockpay.payments.transition_store import Known, Moved, Place
from mockpay.payments.views import View
from mockpay.postgres.pool import Connection

CHANGED = 200
NO_PAYMENT = "There is no such payment."


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """What one client asks for. `view` shows it the payment as it is then."""

    tenant_id: UUID
    payment_id: UUID
    change: Change
    triggered_by: TriggeredBy
    keyed: KeyedRequest | None
    view: View

    @property
    def place(self) -> Place:
        return self.tenant_id, self.payment_id

    def answer(self, payment: Payment) -> Answer:
        return Answer(CHANGED, exact_json.encode(self.view(payment)))


async def move_together(context: Context, asked: Sequence[Transition]) -> list[Answer | ApiError | None]:
    """Returns for each, in their order, its answer or why it is refused. All that is answered is durable.

    Returns None where that is undecided; `move_under_locks` decides those.
    """
    async with context.database.connection() as connection:  # each statement is a transaction by itself
        done = await attempt(context, connection, asked)
    if done.is_news:
        context.wake_worker()
    return done.answers


async def move_under_locks(context: Context, asked: Transition) -> Answer:
    """Raises NotFound, InvalidTransition, InvalidRequest and IdempotencyKeyReused."""
    async with context.database.transaction() as connection:
        await store.lock(connection, asked.place)
        await fault_rules.lock(connection, [asked.tenant_id])
        [answer] = (await attempt(context, connection, [asked])).answers
        if answer is None:  # a key that another request took meanwhile: by now what it stands for is seen
            [answer] = (await attempt(context, connection, [asked])).answers
    context.wake_worker()
    assert answer is not None, "under locks nothing is passed over but what is stored"
    if isinstance(answer, ApiError):
        raise answer
    return answer


async def attempt(context: Context, connection: Connection, asked: Sequence[Transition]) -> Attempt:
    """Decides by what is so now, and writes what still is when it is written."""
    now = context.clock.now()
    known = await store.facts(connection, [(*each.place, each.keyed.key if each.keyed else None) for each in asked])
    decided = [decide(context, each, facts, now) for each, facts in zip(asked, known, strict=True)]
    moved = _firsts([each for each in decided if isinstance(each, Moved)])
    with_faults = {each.tenant_id for each, facts in zip(asked, known, strict=True) if facts.has_faults}
    deliveries, counted = await asked_about(context, connection, [each.delivery for each in moved], with_faults)
    whole = [
        each if each.delivery is of else msgspec.structs.replace(each, delivery=of)
        for each, of in zip(moved, deliveries, strict=True)
    ]
    written = await store.write(connection, whole, counted, now) if whole else set()
    done = {each.place: each for each in moved if each.place in written}
    return Attempt(
        [_outcome(each, done.get(each.place)) if isinstance(each, Moved) else each for each in decided],
        any(each.delivery for each in done.values()),
    )


def decide(context: Context, asked: Transition, known: Known, now: datetime) -> Answer | ApiError | Moved:
    """Decides one, whatever else is decided with it."""
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
        delivery=new_delivery(context, payment, known.default_url),
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
