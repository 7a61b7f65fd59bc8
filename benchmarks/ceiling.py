"""What the database alone does: pgbench, prepared, one payment a transaction, with the rows that a create writes.

Without the triggers that keep the figures of the server: they are a cost of MockPay's, and would lower the ceiling.
"""

import re
import subprocess
from pathlib import Path

from mockpay.database_access import DatabaseAccess
from mockpay.postgres.server_process import programs_folder
from mockpay.postgres.service_user import choose_service_user

TENANT = "00000000-0000-7000-8000-0000000000aa"
SETUP = f"""
INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
VALUES ('{TENANT}', 'Ceiling', 'ceiling@example.com', sha256('ceiling'), 'standard', now()) ON CONFLICT DO NOTHING
"""
ROLLUP_TRIGGERS = """
ALTER TABLE payments {0} TRIGGER payments_inserted; ALTER TABLE audit_log {0} TRIGGER audit_log_inserted
"""
CREATE = f"""
WITH key AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, answer_status, answer_body, created_at)
    VALUES ('{TENANT}', gen_random_uuid()::text, sha256('x'), 201, repeat('x', 500)::bytea, now()) RETURNING key
), payment AS (
    INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
    SELECT '{TENANT}', gen_random_uuid(), 4999, 'USD', 'pending', key, now(), now() FROM key RETURNING *
)
INSERT INTO audit_log (tenant_id, payment_id, sequence, id, new_status, triggered_by, metadata, created_at, prev_hash,
                       entry_hash)
SELECT tenant_id, id, 1, gen_random_uuid(), 'pending', 'create_api', '{{"amount": "49.99"}}', now(), repeat('0', 64),
       encode(sha256('x'), 'hex')
FROM payment;
"""


def transactions_per_second(access: DatabaseAccess, folder: Path, seconds: float) -> float:
    programs = programs_folder()
    script = folder / "create.sql"
    script.write_text(CREATE.replace("\n", " "))
    options = choose_service_user().process_options()
    choose_service_user().let_through(folder)

    def execute(statements: str) -> None:
        subprocess.run([programs / "psql", access.migration_url, "-qc", statements], check=True, **options)

    execute(SETUP + ";" + ROLLUP_TRIGGERS.format("DISABLE"))
    done = subprocess.run(
        [programs / "pgbench", "-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", str(int(seconds)),
         "-f", script, access.url],
        check=True, capture_output=True, text=True, **options,
    )  # fmt: skip
    execute(ROLLUP_TRIGGERS.format("ENABLE"))
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])
