"""The audit trail: append-only for everyone, and an edit behind the triggers' back is found."""

import itertools
import re
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from mockpay.audit.checkpoint import read_lines, read_summary
from mockpay.audit.checkpoint_file import covered_in, new_file, summary_in
from mockpay.audit.store import append, history
from mockpay.audit.verify import verify
from mockpay.errors import StartupError
from mockpay.faults import service as faults
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.payments import scheduler, service
from mockpay.payments.model import Payment, Refund
from mockpay.serving import sign_audit, verify_audit
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from mockpay.types import Amount
from tests.support.fakes import START
from tests.support.gateway import Gateway
from tests.support.processes import run

KEY = b"k" * 32
PEAK_BYTES_MAX = 3_000_000
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


async def verified(gateway: Gateway) -> list[str]:
    """What is told of broken entries."""
    told: list[str] = []
    async with gateway.context.database.snapshot() as connection:
        report = await verify(connection, told.append)
    assert (report.broken, report.is_intact) == (len(told), not told)
    return told


async def test_an_intact_trail(gateway: Gateway, payment: Payment) -> None:
    _, entries, broken = await service.history(gateway.context, gateway.tenant, payment.id)
    assert [entry.content.new_status for entry in entries] == ["pending", "success", "partially_refunded"]
    assert broken is None
    assert await verified(gateway) == []


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
    [line] = await verified(gateway)
    assert str(edited) in line
    assert str(payment.id) in line


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
    [line] = await verified(gateway)
    assert line == f"payment {payment.id}: entry number 1: no entry explains the payment's status, partially_refunded"


@pytest.mark.tampering
async def test_a_trail_whose_payment_is_gone_is_found(gateway: Gateway, superuser: Any, payment: Payment) -> None:
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("DELETE FROM payments")
    [line] = await verified(gateway)
    assert line == f"payment {payment.id}: entry number 4: the payment itself is missing"


EDITS = {
    "amount_minor_units = amount_minor_units + 1": "amount", "currency = 'JPY'": "amount and currency and refund_amount",
    "currency = 'ZZZ'": "currency", "refund_minor_units = refund_minor_units - 1": "refund_amount",
    "refund_reason = 'another'": "refund_reason",
}  # fmt: skip


@pytest.mark.tampering
@pytest.mark.parametrize("edit", EDITS)
async def test_a_payment_that_is_not_what_its_last_entry_says_is_found(
    gateway: Gateway, superuser: Any, payment: Payment, edit: str
) -> None:
    entry = (await history(superuser, payment.tenant_id, payment.id))[-1].content.id
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute(f"UPDATE payments SET {edit}")
    [line] = await verified(gateway)
    assert line == f"payment {payment.id}: entry {entry}: the payment has another {EDITS[edit]} than it says"
    if "ZZZ" not in edit:
        _, _, broken = await service.history(gateway.context, gateway.tenant, payment.id)
        assert broken is not None


@dataclass
class Checkpoint:
    """One that was taken of a database, in the way of the command."""

    url: str
    lines: list[bytes] = field(default_factory=list)

    async def lost(self) -> list[str]:
        """What `verify` tells now that is not a broken entry."""
        summary = read_summary(self.lines, KEY)
        told: list[str] = []
        report = await verify_audit(self.url, told.append, read_lines(self.lines, summary))
        assert (report.broken, report.lost, report.is_intact) == (0, len(told), not told)
        return told


@pytest.fixture
async def checkpoint(gateway: Gateway, payment: Payment, database_url: str) -> Checkpoint:
    """Of `payment`, another one before it in the order of time, and one of another tenant."""
    await gateway.create("pending")
    other = await tenants.register(gateway.context, Registration("Other", Email("other@example.com")))
    await replace(gateway, tenant=other.tenant).succeeded("k")
    taken = Checkpoint(database_url)
    summary = await sign_audit(database_url, taken.lines.append, KEY, START)
    assert (summary.payments, summary.entries) == (3, 6)
    return taken


async def behind_the_back(superuser: Any) -> None:
    """No trigger stands in the way from here on: not those of foreign keys and transitions, nor the one that always fires."""
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")


async def test_what_a_checkpoint_covers_is_there(checkpoint: Checkpoint) -> None:
    assert await checkpoint.lost() == []


async def test_what_came_after_a_checkpoint_is_no_fault(
    gateway: Gateway, payment: Payment, checkpoint: Checkpoint, superuser: Any
) -> None:
    """New payments, also with ids before all others, and new entries of old ones."""
    await gateway.failed("new")
    low_ids = (UUID(int=number) for number in itertools.count(1))
    await replace(gateway, context=replace(gateway.context, new_id=low_ids.__next__)).create("low")
    pending = await superuser.fetchval("SELECT id FROM payments WHERE idempotency_key = 'pending'")
    await gateway.succeeded_of(await service.get(gateway.context, gateway.tenant, pending))
    assert await checkpoint.lost() == []


@pytest.mark.tampering
async def test_the_removal_of_a_whole_payment_is_named(
    payment: Payment, checkpoint: Checkpoint, superuser: Any
) -> None:
    await behind_the_back(superuser)
    await superuser.execute("DELETE FROM audit_log WHERE payment_id = $1", payment.id)
    await superuser.execute("DELETE FROM payments WHERE id = $1", payment.id)
    [line] = await checkpoint.lost()
    assert line.startswith(f"payment {payment.id} of tenant {payment.tenant_id}: missing since the checkpoint, with 3 ")


@pytest.mark.tampering
async def test_the_removal_of_everything_is_named(checkpoint: Checkpoint, superuser: Any) -> None:
    await behind_the_back(superuser)
    await superuser.execute("DELETE FROM audit_log")
    await superuser.execute("DELETE FROM payments")
    assert len(await checkpoint.lost()) == 3


@pytest.mark.tampering
@pytest.mark.parametrize(
    ("kept", "status", "which"), [(2, "success", "entry number 3"), (1, "pending", "entries 2 to 3")]
)
async def test_the_removal_of_the_newest_entries_is_named(
    payment: Payment, checkpoint: Checkpoint, superuser: Any, kept: int, status: str, which: str
) -> None:
    """Where the payment is set back too, its chain alone shows nothing."""
    await behind_the_back(superuser)
    await superuser.execute("DELETE FROM audit_log WHERE payment_id = $1 AND sequence > $2", payment.id, kept)
    await superuser.execute(
        "UPDATE payments SET status = $2, refund_minor_units = NULL, refunded_at = NULL, refund_reason = NULL WHERE id = $1",
        payment.id,
        status,
    )
    assert await checkpoint.lost() == [f"payment {payment.id}: {which}: missing since the checkpoint"]


@pytest.mark.tampering
@pytest.mark.parametrize("longer", [False, True])
async def test_a_chain_that_was_rewritten_with_its_hashes_is_named(
    gateway: Gateway, payment: Payment, checkpoint: Checkpoint, superuser: Any, longer: bool
) -> None:
    entries = await history(superuser, payment.tenant_id, payment.id)
    await behind_the_back(superuser)
    await superuser.execute("DELETE FROM audit_log WHERE payment_id = $1", payment.id)
    contents = [msgspec.structs.replace(entry.content, metadata={"currency": "USD"}) for entry in entries]
    for content in [*contents, *([msgspec.structs.replace(contents[-1], id=UUID(int=1))] if longer else [])]:
        await append(superuser, content)
    assert await checkpoint.lost() == [
        f"payment {payment.id}: entry {entries[-1].content.id}: rewritten since the checkpoint, with its hash"
    ]


async def test_nothing_is_signed_of_a_broken_trail(database_url: str, payment: Payment, superuser: Any) -> None:
    await behind_the_back(superuser)
    await superuser.execute("UPDATE audit_log SET triggered_by = 'admin' WHERE sequence = 2")
    lines: list[bytes] = []
    with pytest.raises(StartupError, match="broken"):
        await sign_audit(database_url, lines.append, KEY, START)
    assert lines == []


@pytest.mark.tampering
async def test_the_commands(checkpoint: Checkpoint, superuser: Any, tmp_path: Path) -> None:
    """What they print, and what they exit with."""
    settings = {"MOCKPAY_DATABASE_URL": checkpoint.url, "MOCKPAY_DATA_DIR": str(tmp_path)}
    file = tmp_path / "checkpoint.jsonl"
    signed = run("audit", "checkpoint", f"--file={file}", **settings)
    assert re.fullmatch(rf"{file}: 3 payments, 6 audit entries, root hash [0-9a-f]{{64}}\n", signed.stdout), (
        signed.stderr
    )
    verified = run("audit", "verify", f"--checkpoint={file}", **settings)
    assert re.search(r"root hash [0-9a-f]{64}: all there\n3 payments, 6 audit entries: intact\n$", verified.stdout)
    assert (signed.returncode, verified.returncode) == (0, 0)

    await behind_the_back(superuser)
    await superuser.execute("UPDATE audit_log SET triggered_by = 'admin' WHERE sequence = 2")
    printed = run("audit", "checkpoint", **settings)
    assert (printed.returncode, printed.stderr.startswith("mockpay: The audit trail is broken")) == (1, True)
    verified = run("audit", "verify", f"--checkpoint={file}", **settings)
    assert verified.stdout.count("its content does not match its entry_hash\n") == 2
    assert verified.stdout.endswith("all there\n3 payments, 6 audit entries: 2 BROKEN\n")
    assert verified.returncode == 1

    await superuser.execute("DELETE FROM audit_log")
    await superuser.execute("DELETE FROM payments")
    assert run("audit", "verify", **settings).returncode == 0, "of what is gone nothing is broken"
    verified = run("audit", "verify", f"--checkpoint={file}", **settings)
    assert verified.stdout.count("missing since the checkpoint") == 3
    assert verified.stdout.endswith("3 MISSING OR REWRITTEN\n0 payments, 0 audit entries: intact\n")
    assert verified.returncode == 1


async def test_memory_does_not_grow_with_the_trail(
    many: int, database_url: str, superuser: Any, tmp_path: Path
) -> None:
    """Every payment is covered by a checkpoint, then every entry is broken: nothing of it is gathered."""
    with new_file(tmp_path / "checkpoint.jsonl") as write:
        summary = await sign_audit(database_url, write, KEY, START)
    assert summary.payments == many
    await behind_the_back(superuser)
    await superuser.execute("UPDATE audit_log SET triggered_by = 'admin', entry_hash = prev_hash")
    told: Counter[str] = Counter()
    tracemalloc.start()
    try:
        covered = covered_in(tmp_path / "checkpoint.jsonl", summary_in(tmp_path / "checkpoint.jsonl", KEY))
        report = await verify_audit(database_url, lambda line: told.update([line.split(": ")[-1]]), covered)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.payments, report.broken, report.lost) == (many, many, many)
    assert sorted(told.values()) == [many, many]
    assert peak < PEAK_BYTES_MAX, peak


@pytest.fixture
async def many(tenant: Tenant, superuser: Any) -> int:
    """Payments with one entry each, whose hash SQL computes: this shares nothing with what checks it."""
    payments = 8_000
    await superuser.execute(
        """
        INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
        SELECT $1, gen_random_uuid(), 1, 'USD', 'pending', number::text, '2026-01-31 12:00Z', '2026-01-31 12:00Z'
        FROM generate_series(1, $2::integer) AS number
        """,
        tenant.id,
        payments,
    )
    await superuser.execute(
        """
        INSERT INTO audit_log (tenant_id, payment_id, sequence, id, new_status, triggered_by, metadata, created_at,
                               prev_hash, entry_hash)
        SELECT tenant_id, id, 1, id, 'pending', 'create_api', '{}', created_at, repeat('0', 64), encode(sha256(convert_to(
            format('["mockpay-audit-1","%s","%s",1,"%s",null,"pending","create_api",{},"2026-01-31T12:00:00.000000Z","%s"]',
                   tenant_id, id, id, repeat('0', 64)), 'UTF8')), 'hex')
        FROM payments
        """
    )
    return payments


REFUSED_AT_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused at commit'; END $$;
CREATE CONSTRAINT TRIGGER refuse_all AFTER INSERT OR UPDATE ON {} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse()
"""


WRITTEN_TOGETHER = ("payments", "audit_log", "webhook_deliveries", "idempotency_keys", "fault_rules")


@pytest.mark.parametrize("has_faults", [False, True])
@pytest.mark.parametrize("table", WRITTEN_TOGETHER[:3])
@pytest.mark.parametrize("change", ["create", "succeed", "outcome"])
async def test_the_payment_its_entry_and_its_webhook_are_written_together_or_not_at_all(
    gateway: Gateway, superuser: Any, change: str, table: str, has_faults: bool
) -> None:
    """Whichever of them is refused, at the very end of the transaction: none of the others is there either.

    Nor has a fault rule counted what did not happen.
    """
    if has_faults:
        await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText("drop"), every=1_000_000))
    payment = await gateway.create("k")
    if change == "outcome":
        await superuser.execute(
            "UPDATE payments SET outcome_status = 'success', outcome_seed = 1, outcome_due_at = now()"
        )
    before = [await superuser.fetch(f"TABLE {name}") for name in WRITTEN_TOGETHER]
    await superuser.execute(REFUSED_AT_COMMIT.format(table))
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: gateway.create("above the limit, which is news", amount="200000"),
        "succeed": lambda: gateway.succeeded_of(payment),
        "outcome": lambda: scheduler.settle_due(gateway.context),
    }
    if change == "outcome":
        await acts[change]()  # it is put off
        assert await superuser.fetchval("SELECT error FROM put_off_outcomes") == "RaiseError"
    else:
        with pytest.raises(asyncpg.RaiseError, match="refused at commit"):
            await acts[change]()
    assert [await superuser.fetch(f"TABLE {name}") for name in WRITTEN_TOGETHER] == before


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
