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

_WHO_AND_WHERE_SQL: Final = """
SELECT current_user::text AS role, current_database()::text AS database, system_identifier AS server
FROM pg_control_system()
"""
# A role is no value that a statement could take as a parameter; a setting of this transaction is.
_NAME_SQL: Final = "SELECT set_config('mockpay.application', $1, true), set_config('mockpay.rights', $2, true)"
_ACT_AS_SQL: Final = "SELECT set_config('role', $1, true)"
_OWNER_SQL: Final = """
SELECT rolname::text FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
WHERE pg_class.oid = to_regclass('schema_migrations') AND pg_has_role(relowner, 'MEMBER')
"""
_GIVE_TABLES_SQL: Final = """
DO $$
DECLARE
    application name := current_setting('mockpay.application');
    rights record;
BEGIN
    FOR rights IN SELECT key AS relation, value AS given FROM jsonb_each_text(current_setting('mockpay.rights')::jsonb)
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', rights.relation, application);
        EXECUTE format('GRANT %s ON %I TO %I', rights.given, rights.relation, application);
    END LOOP;
END $$
"""
# A temporary table goes before the real one of its name: on a connection that has one, payments and audit entries would
# vanish. Who may not take a right back gets a warning from PostgreSQL, and no error.
_GIVE_PLACE_SQL: Final = """
DO $$
DECLARE
    application name := current_setting('mockpay.application');
BEGIN
    EXECUTE format('REVOKE TEMPORARY, CREATE ON DATABASE %I FROM PUBLIC, %I', current_database(), application);
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I', current_schema(), application);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), application);
END $$
"""
# From the owner itself.
_PROTECT_SQL: Final = "REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM PUBLIC, CURRENT_USER"
_LACKING_SQL: Final = """
SELECT needed.relation, needed.privilege
FROM unnest($1::text[], $2::text[]) AS needed (relation, privilege)
WHERE NOT has_table_privilege($3, needed.relation, needed.privilege)
"""
_EXCESS_SQL: Final = """
WITH needed AS (
    SELECT relation, privilege FROM unnest($1::text[], $2::text[]) AS needed (relation, privilege)
),
-- From the one that counts most: who owns the database can take the schema, and who has that can take the tables.
owned AS (
    SELECT 'database ' || datname AS thing, datdba AS owner, 1 AS place
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'schema ' || nspname, nspowner, 2 FROM pg_namespace WHERE nspname = current_schema()
    UNION ALL
    SELECT 'table ' || relname, relowner, 3 FROM pg_class WHERE oid IN (SELECT to_regclass(relation) FROM needed)
)
(
    SELECT 'ownership of the ' || thing AS excess, TRUE AS is_ownership
    FROM owned WHERE pg_has_role($3, owner, 'MEMBER') ORDER BY place LIMIT 1
)
UNION ALL
SELECT privilege || ' on the database', FALSE FROM unnest(ARRAY['CREATE', 'TEMPORARY']) AS privilege
WHERE has_database_privilege($3, current_database(), privilege)
UNION ALL
SELECT 'CREATE on the schema', FALSE WHERE has_schema_privilege($3, current_schema(), 'CREATE')
UNION ALL
SELECT privilege || ' on ' || relation, FALSE
FROM (SELECT DISTINCT relation FROM needed) AS relations,
     unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
WHERE has_table_privilege($3, relation, privilege) AND (relation, privilege) NOT IN (SELECT * FROM needed)
"""


class Identity(NamedTuple):
    role: str
    database: str
    server: int
    """By what its data folder was given when it was made."""


async def who_and_where(connection: Connection) -> Identity:
    row = await connection.fetchrow(_WHO_AND_WHERE_SQL)
    assert row is not None, "one row"
    return Identity(*row)


async def owner_to_be(connection: Connection) -> str | None:
    """Who owns the tables, if there are some and this role is that one, can become it, or is a superuser."""
    owner: str | None = await connection.fetchval(_OWNER_SQL)
    return owner


async def act_as(connection: Connection, role: str) -> None:
    """Until the end of the transaction."""
    await connection.execute(_ACT_AS_SQL, role)


async def give(connection: Connection, application: str, owner: str, role: str) -> None:
    """To the role of that name, in a transaction: what is listed, and nothing else.

    Rights on tables are the owner's to give, those on the database and the schema perhaps this role's only. Where many
    do it at the same time they need a lock.
    """
    rights = {relation: ", ".join(privileges) for relation, privileges in RIGHTS.items()}
    await connection.execute(_NAME_SQL, application, exact_json.encode(rights).decode())
    await act_as(connection, owner)
    await connection.execute(_GIVE_TABLES_SQL)
    await act_as(connection, role)
    await connection.execute(_GIVE_PLACE_SQL)


async def protect_audit(connection: Connection) -> None:
    """As the owner. A dump that was restored without rights lacks this."""
    await connection.execute(_PROTECT_SQL)


async def lacking(connection: Connection, application: str) -> list[str]:
    """Rights that the role of that name would need and does not have, such as "INSERT on payments"."""
    rows = await connection.fetch(_LACKING_SQL, *columns_of(_needed(), 2), application)
    return [f"{row['privilege']} on {row['relation']}" for row in rows]


async def excess(connection: Connection, application: str) -> list[str]:
    """What the role of that name has and does not need, by itself or as a member of others. Of an owner only that."""
    rows = await connection.fetch(_EXCESS_SQL, *columns_of(_needed(), 2), application)
    owned = [row["excess"] for row in rows if row["is_ownership"]]
    return owned or sorted(row["excess"] for row in rows)


def _needed() -> list[tuple[str, str]]:
    return [(relation, privilege) for relation, privileges in RIGHTS.items() for privilege in privileges]
