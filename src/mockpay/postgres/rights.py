"""What the application's role may do in the database, where it is not the role that owns the schema.

The owner gives these rights whenever it migrates. Whoever makes the application run statements of his own can then do
what the application can, and not more: the schema, its triggers, the audit trail and the payments stay.
"""

from typing import Final, NamedTuple

from mockpay import exact_json
from mockpay.postgres.parameters import columns_of
from mockpay.postgres.pool import Connection

# To lock rows takes the right to update them.
RIGHTS: Final = {
    "tenants": ("SELECT", "INSERT", "UPDATE"),
    "webhook_secrets": ("SELECT", "INSERT", "UPDATE"),
    "creation_counters": ("SELECT", "INSERT", "UPDATE"),
    "payments": ("SELECT", "INSERT", "UPDATE"),
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE"),
    "audit_log": ("SELECT", "INSERT"),
    "webhook_deliveries": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "delivery_attempts": ("SELECT", "INSERT", "DELETE"),
    "rollups": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "requests": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "fault_rules": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "fraud_rules": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "rate_limits": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "counted_rollups": ("SELECT",),
    "schema_migrations": ("SELECT",),
}

_WHO_AND_WHERE_SQL: Final = "SELECT current_user::text AS role, current_database()::text AS database"
# A role is no value that a statement could take as a parameter; a setting of this transaction is.
_NAME_SQL: Final = "SELECT set_config('mockpay.application', $1, true), set_config('mockpay.rights', $2, true)"
_GIVE_SQL: Final = """
DO $$
DECLARE
    application name := current_setting('mockpay.application');
    rights record;
BEGIN
    -- A temporary table goes before the real one of its name: on a connection that has one, payments and audit entries
    -- would vanish.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), application);
    FOR rights IN SELECT key AS relation, value AS given FROM jsonb_each_text(current_setting('mockpay.rights')::jsonb)
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', rights.relation, application);
        EXECUTE format('GRANT %s ON %I TO %I', rights.given, rights.relation, application);
    END LOOP;
END $$
"""
# From the owner itself.
_PROTECT_SQL: Final = "REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM PUBLIC, CURRENT_USER"
_LACKING_SQL: Final = """
SELECT needed.relation, needed.privilege
FROM unnest($1::text[], $2::text[]) AS needed (relation, privilege)
WHERE NOT has_table_privilege($3, needed.relation, needed.privilege)
"""
_OWNS_SQL: Final = """
SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass('audit_log')
"""


class Identity(NamedTuple):
    role: str
    database: str


async def who_and_where(connection: Connection) -> Identity:
    row = await connection.fetchrow(_WHO_AND_WHERE_SQL)
    assert row is not None, "one row"
    return Identity(row["role"], row["database"])


async def give(connection: Connection, application: str) -> None:
    """As the owner, to the role of that name. What an earlier version gave and this one does not is taken back.

    Where many do it at the same time they need a lock.
    """
    rights = {relation: ", ".join(privileges) for relation, privileges in RIGHTS.items()}
    await connection.execute(_NAME_SQL, application, exact_json.encode(rights).decode())
    await connection.execute(_GIVE_SQL)


async def protect_audit(connection: Connection) -> None:
    """As the owner. A dump that was restored without rights lacks this."""
    await connection.execute(_PROTECT_SQL)


async def lacking(connection: Connection, application: str) -> list[str]:
    """Rights that the role of that name would need and does not have, such as "INSERT on payments"."""
    needed = [(relation, privilege) for relation, privileges in RIGHTS.items() for privilege in privileges]
    rows = await connection.fetch(_LACKING_SQL, *columns_of(needed, 2), application)
    return [f"{row['privilege']} on {row['relation']}" for row in rows]


async def owns_the_schema(connection: Connection) -> bool:
    """Whether this role may change tables and triggers: it is their owner, can become their owner, or a superuser."""
    owns: bool | None = await connection.fetchval(_OWNS_SQL)
    return bool(owns)
