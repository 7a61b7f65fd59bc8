"""A dump that is made under load, and restored elsewhere, is a gateway whose books agree."""

import asyncio
import subprocess
from contextlib import closing
from pathlib import Path

import httpx

from mockpay.postgres.embedded import APPLICATION, OWNER, SUPERUSER
from mockpay.postgres.pool import connect
from mockpay.postgres.server_process import programs_folder
from mockpay.postgres.service_user import choose_service_user
from tests.crash import books
from tests.crash.clients import Client
from tests.crash.ledger import Asked, Ledger
from tests.crash.machine import ADMIN_KEY, Machine
from tests.support.background import Background
from tests.support.processes import Gateway, end_velocity_rule, run, running, wait_until
from tests.support.servers import scratch_folder

BEFORE, AFTER = 150, 150
ASKED = {"amount": 49.99, "currency": "USD"}
STRUCTURE = """
SELECT 'trigger ' || tgname || ' ' || tgenabled::text AS thing FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'constraint ' || conname || ' ' || convalidated FROM pg_constraint
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'function ' || proname || md5(prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1
"""
COUNTS = (
    "SELECT count(*) FROM fraud_rules",
    "SELECT count(*) FROM schema_migrations",
    "SELECT count(*) FROM tenants WHERE id NOT IN (SELECT tenant_id FROM webhook_secrets WHERE expires_at IS NULL)",
)


def test_a_dump_under_load_restored_elsewhere_agrees(tmp_path: Path) -> None:
    ledger = Ledger()
    with (
        scratch_folder() as folder,
        closing(Background(0)) as background,
        closing(Machine(folder, 1)) as machine,
    ):
        end_velocity_rule(machine.url("serve"), ADMIN_KEY)
        clients = [
            Client(number, 1, [machine.url("serve"), machine.url("api")], background.receiver.url, ledger)
            for number in range(3)
        ]
        remembered = remember(machine.url("serve"), ledger)
        for client in clients:
            client.start()
        wait_until(lambda: len(ledger.told) >= BEFORE)
        told_before, made_before = list(ledger.told), list(ledger.made)
        folder_of_dump = folder / "dump"
        folder_of_dump.mkdir()
        choose_service_user().own(folder_of_dump)
        dump = folder_of_dump / "mockpay.dump"
        postgres("pg_dump", "--format=custom", f"--file={dump}", machine.database_url_of(OWNER))
        wait_until(lambda: len(ledger.told) >= len(told_before) + AFTER)
        for client in clients:
            client.stop()
        restored = restore(machine, dump)
        # What came after the dump is not in it. What a client was told before is, whole.
        before = Ledger(told=told_before, asked=ledger.asked, made=made_before)
        findings = books.check(restored, before, background.receiver.received, is_older=True)
        assert findings.all == []
        assert findings.checked["payments"] >= len({each.payment_id for each in told_before})
        assert findings.checked["payments"] < len({each.payment_id for each in ledger.told})
        assert asyncio.run(structure_of(restored)) == asyncio.run(structure_of(machine.database_url))
        check_it_serves(folder, restored, remembered)


def remember(url: str, ledger: Ledger) -> httpx.Response:
    """A payment of before the dump."""
    registered = httpx.post(f"{url}/api/auth/register", json={"name": "Me", "email": "me@example.com"}, trust_env=False)
    headers = {"Authorization": f"Bearer {registered.json()['api_key']}", "Idempotency-Key": "remembered"}
    created = httpx.post(f"{url}/api/payments", json=ASKED, headers=headers, trust_env=False)
    assert created.status_code == 201, created.text
    ledger.asked["remembered"] = Asked(registered.json()["tenant_id"], "remembered", "create", 4_999)
    return created


def check_it_serves(folder: Path, restored: str, remembered: httpx.Response) -> None:
    """With the keys of before, which are remembered; and new payments are made."""
    gateway = Gateway(folder / "restored.log", "api", MOCKPAY_DATABASE_URL=restored)
    with running(gateway):
        key = remembered.request.headers["Authorization"]
        for name, is_replayed in (("remembered", "true"), ("new", None)):
            headers = {"Authorization": key, "Idempotency-Key": name}
            answer = gateway.client.post("/api/payments", json=ASKED, headers=headers)
            assert answer.status_code == 201, answer.text
            assert answer.headers.get("Idempotent-Replayed") == is_replayed
            assert (answer.content == remembered.content) == (name == "remembered")
        assert gateway.stop() == 0


async def structure_of(url: str) -> list[str]:
    """And what no client of these changes."""
    connection = await connect(url)
    found = [str(row["thing"]) for row in await connection.fetch(STRUCTURE)]
    found += [f"{statement}: {await connection.fetchval(statement)}" for statement in COUNTS]
    await connection.close()
    return found


def restore(machine: Machine, dump: Path) -> str:
    """Into a new database, as the docs say; its URL for the application, which gets its rights again."""
    asyncio.run(create_database(machine.database_url_of(SUPERUSER)))
    as_owner = machine.database_url_of(OWNER, "restored")
    postgres("pg_restore", "--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={as_owner}", str(dump))
    restored = machine.database_url_of(APPLICATION, "restored")
    migrated = run("migrate", MOCKPAY_DATABASE_URL=restored, MOCKPAY_MIGRATION_DATABASE_URL=as_owner)
    assert migrated.stdout == "The database is up to date.\n", migrated.stderr
    assert not asyncio.run(may_rewrite_the_audit(as_owner)), "the owner itself lacks the right, as before"
    return restored


async def create_database(url: str) -> None:
    connection = await connect(url)
    await connection.execute(f"CREATE DATABASE restored OWNER {OWNER}")
    await connection.close()


async def may_rewrite_the_audit(url: str) -> bool:
    connection = await connect(url)
    may: bool = await connection.fetchval("SELECT has_table_privilege('audit_log', 'UPDATE')")
    await connection.close()
    return may


def postgres(program: str, *arguments: str) -> None:
    command = [str(programs_folder() / program), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, **choose_service_user().process_options()
    )
    assert done.returncode == 0, done.stderr
