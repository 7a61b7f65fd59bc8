"""What the administrator does to tenants and fraud rules. Each function is one transaction."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from mockpay import rollups
from mockpay.admin.requests import ChangeRule, CreateRule
from mockpay.context import Context
from mockpay.cursor import Cursor
from mockpay.errors import Fault, InvalidRequest, NotFound
from mockpay.payments import rules
from mockpay.payments import store as payments
from mockpay.payments.fraud import StoredRule
from mockpay.rollups import Figure
from mockpay.settings import RateLimitTier
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant

NO_RULE: Final = "There is no such fraud rule."


class User(msgspec.Struct, frozen=True):
    """A tenant, and how many payments it has made."""

    tenant: Tenant
    payments: int

    @property
    def created_at(self) -> datetime:
        return self.tenant.created_at

    @property
    def id(self) -> UUID:
        return self.tenant.id


async def users_page(context: Context, *, before: UUID, limit: int) -> tuple[int, list[User]]:
    """The number of all tenants, and one page of them, newest first."""
    async with context.database.connection() as connection:
        registered = await rollups.read(connection, [Figure.TENANTS], context.clock.now())
        found = await tenants.page(connection, before, limit)
        counts = await payments.count_by_tenant(connection, [tenant.id for tenant in found])
    return sum(each.rows for each in registered), [User(tenant, counts.get(tenant.id, 0)) for tenant in found]


async def change_tier(context: Context, user_id: UUID, tier: RateLimitTier) -> User:
    """Raises NotFound."""
    async with context.database.transaction() as connection:
        tenant = await tenants.set_tier(connection, user_id, tier)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        counts = await payments.count_by_tenant(connection, [user_id])
    return User(tenant, counts.get(user_id, 0))


async def rules_page(context: Context, *, after: Cursor | None, limit: int) -> tuple[int, list[StoredRule]]:
    """The number of all fraud rules, and one page of them, in the order in which they are applied."""
    async with context.database.connection() as connection:
        return await rules.count(connection), await rules.page(connection, after, limit)


async def create_rule(context: Context, request: CreateRule) -> StoredRule:
    """Raises InvalidRequest if it names a tenant that there is not."""
    rule = StoredRule(id=context.new_id(), created_at=context.clock.now(), **msgspec.structs.asdict(request))
    async with context.database.transaction() as connection:
        if rule.tenant_id and not await tenants.by_id(connection, rule.tenant_id):
            raise InvalidRequest([Fault("tenant_id", "is no tenant's id")])
        await rules.insert(connection, rule)
    return rule


async def change_rule(context: Context, rule_id: UUID, change: ChangeRule) -> StoredRule:
    """Raises NotFound, and InvalidRequest if the change does not fit the rule."""
    async with context.database.transaction() as connection:
        rule = await rules.by_id_locked(connection, rule_id)
        if rule is None:
            raise NotFound(NO_RULE)
        changed = change.applied_to(rule)
        await rules.update(connection, changed)
    return changed


async def delete_rule(context: Context, rule_id: UUID) -> None:
    """Raises NotFound."""
    async with context.database.connection() as connection:
        if not await rules.delete(connection, rule_id):
            raise NotFound(NO_RULE)
