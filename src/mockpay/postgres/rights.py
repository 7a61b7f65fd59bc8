"""What the application's role may do in the database, where it is not the role that owns the schema.

The owner gives these rights whenever it migrates. Whoever makes the application run statements of his own can then do
what the application can, and not more: the schema, its triggers, the audit trail and the payments stay.
"""

from typing import Final, NamedTuple

import asyncpg

from mockpay import exact_json
from mockpay.postgres.parameters import columns_of
from mockpay.postgres.pool import Connection

# To lock rows takes the right to update them.
RIGHTS: Final = {
    "tenants": ("SELECT", "INSERT", "UPDATE"),
    "webhook_secrets": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "creation_counters": ("SELECT", "INSERT", "UPDATE"),
    "payments": ("SELECT", "INSERT", "UPDATE"),
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "put_off_outcomes": ("SELECT", "INSERT", "UPDATE", "DELETE"),
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
_SERVER_SQL: Final = "SELECT system_identifier FROM pg_control_system()"
# A role is no value that a statement could take as a parameter; a setting of this transaction is.
_NAME_SQL: Final = "SELECT set_config('mockpay.application', $1, true), set_config('mockpay.rights', $2, true)"
# From an owner nothing is taken: requests may be served as the one while a superuser migrates. Who may not take a right
# back from the database or the schema gets a warning from PostgreSQL, and no error.
_GIVE_SQL: Final = """
DO $$
DECLARE
    application record;
    tables record;
    schema record;
    database record;
    rights record;
BEGIN
    SELECT oid, rolname INTO application FROM pg_roles WHERE rolname = current_setting('mockpay.application');
    SELECT relowner AS owner, pg_get_userbyid(relowner) AS owner_name INTO tables
        FROM pg_class WHERE oid = to_regclass('schema_migrations');
    SELECT nspname AS name, nspowner AS owner INTO schema FROM pg_namespace WHERE nspname = current_schema();
    SELECT datname AS name, datdba AS owner INTO database FROM pg_database WHERE datname = current_database();
    FOR rights IN
        SELECT key AS relation, value AS given FROM jsonb_each_text(current_setting('mockpay.rights')::jsonb)
        WHERE (SELECT relowner FROM pg_class WHERE oid = to_regclass(key)) <> application.oid
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', rights.relation, application.rolname);
        EXECUTE format('GRANT %s ON %I TO %I', rights.given, rights.relation, application.rolname);
    END LOOP;
    -- A temporary table goes before the real one of its name: on a connection that has one, payments and audit entries
    -- would vanish.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', database.name);
    IF application.oid NOT IN (tables.owner, database.owner) THEN
        EXECUTE format('REVOKE TEMPORARY, CREATE ON DATABASE %I FROM %I', database.name, application.rolname);
    END IF;
    -- In a schema from before PostgreSQL 15 the owner of the tables may have made them by what was everybody's right.
    IF has_schema_privilege(tables.owner, schema.name, 'CREATE')
            AND NOT pg_has_role(tables.owner, schema.owner, 'USAGE') THEN
        EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', schema.name, tables.owner_name);
    END IF;
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', schema.name);
    IF application.oid NOT IN (tables.owner, schema.owner) THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM %I', schema.name, application.rolname);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', schema.name, application.rolname);
END $$
"""
# From the owner itself.
_PROTECT_SQL: Final = """
DO $$
BEGIN
    EXECUTE format(
        'REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM PUBLIC, %I',
        (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass('audit_log'))
    );
END $$
"""
_OWNS_SQL: Final = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('audit_log')"
_LACKING_SQL: Final = """
SELECT needed.relation, needed.privilege
FROM unnest($1::text[], $2::text[]) AS needed (relation, privilege)
WHERE NOT has_table_privilege($3, needed.relation, needed.privilege)
"""
_EXCESS_SQL: Final = """
WITH needed AS (
    SELECT relation, privilege FROM unnest($1::text[], $2::text[]) AS needed (relation, privilege)
),
-- The role itself, and each that it is a member of: it can become that one, if it does not have its rights already.
roles AS (
    SELECT * FROM pg_roles WHERE pg_has_role($3, oid, 'MEMBER')
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
    FROM owned WHERE owner IN (SELECT oid FROM roles) ORDER BY place, thing LIMIT 1
)
UNION
SELECT 'membership in ' || rolname, FALSE FROM roles
WHERE rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_maintain')
UNION
SELECT 'CREATEROLE', FALSE FROM roles WHERE rolcreaterole
UNION
SELECT privilege || ' on the database', FALSE FROM roles, unnest(ARRAY['CREATE', 'TEMPORARY']) AS privilege
WHERE has_database_privilege(oid, current_database(), privilege)
UNION
SELECT 'CREATE on the schema', FALSE FROM roles WHERE has_schema_privilege(oid, current_schema(), 'CREATE')
UNION
SELECT privilege || ' on ' || relation, FALSE
FROM roles, (SELECT DISTINCT relation FROM needed) AS relations,
     unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
WHERE (relation, privilege) NOT IN (SELECT * FROM needed)
  AND CASE WHEN privilege IN ('INSERT', 'UPDATE') THEN has_any_column_privilege(oid, relation, privilege)
           ELSE has_table_privilege(oid, relation, privilege) END
"""


class Identity(NamedTuple):
    role: str
    database: str


async def who_and_where(connection: Connection) -> Identity:
    row = await connection.fetchrow(_WHO_AND_WHERE_SQL)
    assert row is not None, "one row"
    return Identity(*row)


async def server_of(connection: Connection) -> int | None:
    """What the data folder was given when it was made. None where this role may not ask."""
    try:
        identifier: int = await connection.fetchval(_SERVER_SQL)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError, asyncpg.FeatureNotSupportedError):
        return None
    return identifier


async def give(connection: Connection, application: str) -> None:
    """As the owner of the tables, to the role of that name: what is listed, and nothing else.

    In a transaction; where many do it at the same time they need a lock.
    """
    rights = {relation: ", ".join(privileges) for relation, privileges in RIGHTS.items()}
    await connection.execute(_NAME_SQL, application, exact_json.encode(rights).decode())
    await connection.execute(_GIVE_SQL)


async def protect_audit(connection: Connection) -> None:
    """As the owner. A dump that was restored without rights lacks this."""
    await connection.execute(_PROTECT_SQL)


async def lacking(connection: Connection, application: str) -> list[str]:
    """Rights that the role of that name would need and does not have, such as "INSERT on payments"."""
    rows = await connection.fetch(_LACKING_SQL, *columns_of(_needed(), 2), application)
    return [f"{row['privilege']} on {row['relation']}" for row in rows]


async def excess(connection: Connection, application: str) -> list[str]:
    """What the role of that name does not need and has, by itself or as a member of others. Of an owner only that."""
    rows = await connection.fetch(_EXCESS_SQL, *columns_of(_needed(), 2), application)
    owned = [row["excess"] for row in rows if row["is_ownership"]]
    return owned or sorted(row["excess"] for row in rows)


async def owns_the_schema(connection: Connection) -> bool:
    """Whether this role may do what the owner of the tables may: it is the one, has its rights, or is a superuser."""
    owns: bool | None = await connection.fetchval(_OWNS_SQL)
    return bool(owns)


def _needed() -> list[tuple[str, str]]:
    return [(relation, privilege) for relation, privileges in RIGHTS.items() for privilege in privileges]
