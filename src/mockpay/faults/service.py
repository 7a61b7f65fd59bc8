"""A tenant's fault rules: make them, end them, and ask them about a request or a webhook."""

from typing import Final
from uuid import UUID

import msgspec

from mockpay.chance import SEED_MAX, chance
from mockpay.context import Context
from mockpay.errors import Fault, FaultsOff, InvalidRequest, NotFound
from mockpay.events import Event
from mockpay.faults import store
from mockpay.faults.requests import CreateFault
from mockpay.faults.rules import Operation, Rule, ask
from mockpay.postgres.pool import Connection
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant
from mockpay.webhooks.tampering import WebhookFault, parse

RULES_MAX: Final = 100


def refuse_when_off(context: Context) -> None:
    """Raises FaultsOff: a fault that is asked for and does nothing would let a test pass for no reason."""
    if not context.settings.faults_are_on:
        raise FaultsOff


async def create(context: Context, tenant: Tenant, request: CreateFault) -> Rule:
    """Raises InvalidRequest if the tenant has too many, and FaultsOff."""
    refuse_when_off(context)
    rule = _new_rule(context, request)
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if len(await store.of_tenant(connection, tenant.id)) >= RULES_MAX:
            raise InvalidRequest([Fault("fault", f"is one too many: a tenant may have {RULES_MAX} rules; delete some")])
        await store.insert(connection, tenant.id, rule)
    return rule


async def replace_all(context: Context, tenant: Tenant, requests: list[CreateFault]) -> list[Rule]:
    """In place of all that there were. Raises FaultsOff."""
    refuse_when_off(context)
    rules = [_new_rule(context, request) for request in requests]
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        await store.delete_all(connection, tenant.id)
        for rule in rules:
            await store.insert(connection, tenant.id, rule)
    return rules


async def of_tenant(context: Context, tenant: Tenant) -> list[Rule]:
    """In the order in which they are asked."""
    async with context.database.connection() as connection:
        return await store.of_tenant(connection, tenant.id)


async def delete(context: Context, tenant: Tenant, rule_id: UUID) -> None:
    """Raises NotFound."""
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if not await store.delete(connection, tenant.id, rule_id):
            raise NotFound("There is no such fault rule.")


async def delete_all(context: Context, tenant: Tenant) -> None:
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        await store.delete_all(connection, tenant.id)


async def fired_by(context: Context, tenant: Tenant, operation: Operation) -> Rule | None:
    """The rule that makes this request fail, if one does. Whether it does is counted, in this request's turn.

    Where faults are off no rule is asked, and none is counted.
    """
    if not (tenant.has_faults and context.settings.faults_are_on):
        return None
    async with context.database.transaction() as connection:
        return await _ask(connection, tenant, operation)


class Suffers(msgspec.Struct, frozen=True):
    """What shall happen to a webhook, the rule that says so, and the seed of what is left to chance later."""

    fault: WebhookFault
    rule_id: UUID
    seed: int


async def fault_of_webhook(connection: Connection, tenant: Tenant, event: Event) -> Suffers | None:
    """What the webhook of an event suffers, if a rule fires. In the transaction of the event."""
    fired = await _ask(connection, tenant, event) if tenant.has_faults else None
    if fired is None:
        return None
    seed = chance(fired.seed, f"{fired.matched} seed").randint(0, SEED_MAX)
    return Suffers(parse(fired.fault).drawn(fired.seed, wait_of(fired)), fired.id, seed)


def wait_of(rule: Rule) -> str:
    """What a time that is left to chance is drawn for: this rule's fault of this number."""
    return f"{rule.matched} seconds"


def _new_rule(context: Context, request: CreateFault) -> Rule:
    fields = msgspec.structs.asdict(request)
    if request.seed is None:
        fields["seed"] = context.new_seed()
    return Rule(
        id=context.new_id(),
        target=request.fault.target,
        matched=0,
        fired=0,
        created_at=context.clock.now(),
        **fields,
    )


async def _ask(connection: Connection, tenant: Tenant, about: Operation | Event) -> Rule | None:
    fired, asked = ask(await store.lock_for(connection, tenant.id, about))
    for rule in asked:
        await store.count(connection, tenant.id, rule)
    return fired
