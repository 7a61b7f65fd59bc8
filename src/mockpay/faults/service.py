"""A tenant's fault rules: make them, end them, and ask them about a request."""

from typing import Final
from uuid import UUID

import msgspec

from mockpay.context import Context
from mockpay.errors import Fault, InvalidRequest, NotFound
from mockpay.faults import store
from mockpay.faults.requests import CreateFault
from mockpay.faults.rules import Operation, Rule, ask
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant

RULES_MAX: Final = 100


async def create(context: Context, tenant: Tenant, request: CreateFault) -> Rule:
    """Raises InvalidRequest if the tenant has too many."""
    fields = msgspec.structs.asdict(request)
    if request.seed is None:
        fields["seed"] = context.new_seed()
    rule = Rule(id=context.new_id(), matched=0, fired=0, created_at=context.clock.now(), **fields)
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if len(await store.of_tenant(connection, tenant.id)) >= RULES_MAX:
            raise InvalidRequest([Fault("fault", f"is one too many: a tenant may have {RULES_MAX} rules; delete some")])
        await store.insert(connection, tenant.id, rule)
    return rule


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
    """The rule that makes this request fail, if one does. Whether it does is counted, in this request's turn."""
    if not tenant.has_faults:
        return None
    async with context.database.transaction() as connection:
        fired, asked = ask(await store.lock_for(connection, tenant.id, operation), operation)
        for rule in asked:
            await store.count(connection, tenant.id, rule)
    return fired
