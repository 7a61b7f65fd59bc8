"""The audit trail: append-only for everyone, and an edit behind the triggers' back is found."""

from typing import Any

import asyncpg
import pytest

from mockpay.audit.verify import report
from mockpay.payments import service
from mockpay.payments.model import Payment, Refund
from mockpay.types import Amount
from tests.support.gateway import Gateway

CHANGES = ["UPDATE audit_log SET new_status = 'refunded'", "DELETE FROM audit_log", "TRUNCATE audit_log"]


@pytest.fixture
async def payment(gateway: Gateway) -> Payment:
    """One with a trail of three entries."""
    return await gateway.change(await gateway.succeeded("k"), Refund(Amount("10"), "torn — «ein Riß»"))


@pytest.mark.parametrize("statement", [*CHANGES, "UPDATE audit_log SET new_status = 'x' WHERE false",
                                       "TRUNCATE payments CASCADE"])  # fmt: skip
@pytest.mark.parametrize("replication_role", ["origin", "replica"])
async def test_no_superuser_can_change_it(
    superuser: Any, payment: Payment, statement: str, replication_role: str
) -> None:
    await superuser.execute(f"SET session_replication_role = {replication_role}")
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await superuser.execute(statement)
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 3


@pytest.mark.parametrize("statement", CHANGES)
async def test_the_applications_role_lacks_the_right_to_begin_with(
    gateway: Gateway, payment: Payment, statement: str
) -> None:
    async with gateway.context.database.connection() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_an_intact_trail(gateway: Gateway, payment: Payment) -> None:
    _, entries, broken = await service.history(gateway.context, gateway.tenant, payment.id)
    assert [entry.content.new_status for entry in entries] == ["pending", "success", "partially_refunded"]
    assert broken is None
    async with gateway.context.database.connection() as connection:
        found = await report(connection)
    assert (found.payments, found.entries, found.broken) == (1, 3, [])


@pytest.mark.parametrize(("column", "value"), [
    ("old_status", "'flagged'"), ("new_status", "'refunded'"), ("triggered_by", "'admin'"),
    ("metadata", "'{}'"), ("created_at", "created_at + interval '1 microsecond'"), ("id", "gen_random_uuid()"),
    ("prev_hash", f"'{'a' * 64}'"), ("entry_hash", f"'{'a' * 64}'"),
])  # fmt: skip
async def test_an_edit_behind_the_triggers_back_names_the_row(
    gateway: Gateway, superuser: Any, payment: Payment, column: str, value: str
) -> None:
    await superuser.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    edited = await superuser.fetchval(f"UPDATE audit_log SET {column} = {value} WHERE sequence = 2 RETURNING id")
    _, _, broken = await service.history(gateway.context, gateway.tenant, payment.id)
    assert broken is not None
    assert broken.entry_id == edited
    async with gateway.context.database.connection() as connection:
        found = await report(connection)
    assert len(found.broken) == 1
    assert str(edited) in found.broken[0]
    assert str(payment.id) in found.broken[0]


@pytest.mark.tampering
@pytest.mark.parametrize("sequence", [1, 2, 3])
async def test_a_removed_row_is_missed(gateway: Gateway, superuser: Any, payment: Payment, sequence: int) -> None:
    await superuser.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    await superuser.execute("DELETE FROM audit_log WHERE sequence = $1", sequence)
    _, _, broken = await service.history(gateway.context, gateway.tenant, payment.id)
    assert broken is not None


@pytest.mark.tampering
async def test_a_payment_whose_whole_trail_is_gone_is_found(gateway: Gateway, superuser: Any, payment: Payment) -> None:
    await superuser.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    await superuser.execute("DELETE FROM audit_log")
    async with gateway.context.database.connection() as connection:
        found = await report(connection)
    assert len(found.broken) == 1


async def test_the_payment_its_entry_and_its_webhook_are_written_together_or_not_at_all(
    gateway: Gateway, superuser: Any
) -> None:
    """A failure in the very last write of the transaction leaves none of the others."""
    payment = await gateway.create("k")
    await superuser.execute("ALTER TABLE webhook_deliveries ADD CONSTRAINT refuse_all CHECK (false)")
    with pytest.raises(asyncpg.CheckViolationError):
        await gateway.succeeded_of(payment)
    unchanged = await service.get(gateway.context, gateway.tenant, payment.id)
    assert unchanged == payment
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 1


async def test_the_database_knows_the_same_transitions_as_the_code(gateway: Gateway, superuser: Any) -> None:
    from mockpay.payments.model import TRANSITIONS, Status

    await gateway.create("k")
    await superuser.execute("ALTER TABLE payments DROP CONSTRAINT payments_failed_has_code")
    await superuser.execute("ALTER TABLE payments DROP CONSTRAINT payments_flagged_has_rule")
    await superuser.execute("ALTER TABLE payments DROP CONSTRAINT payments_refund_fits_status")
    for before in Status:
        for after in Status:
            await superuser.execute("ALTER TABLE payments DISABLE TRIGGER payments_transition")
            await superuser.execute("UPDATE payments SET status = $1", before.value)
            await superuser.execute("ALTER TABLE payments ENABLE TRIGGER payments_transition")
            try:
                await superuser.execute("UPDATE payments SET status = $1", after.value)
                allowed = True
            except asyncpg.RestrictViolationError:
                allowed = False
            assert allowed == (after in TRANSITIONS[before] or after == before), (before, after)
