"""The application's role can serve requests, which every other test shows, and nothing beyond that."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, Protocol

import asyncpg
import pytest

from mockpay.database_access import DatabaseAccess, check_database, migrate, migrate_and_check
from mockpay.errors import StartupError
from mockpay.postgres.embedded import APPLICATION, OWNER
from mockpay.postgres.migrate import Migration, bundled_migrations
from mockpay.postgres.migrate import migrate as apply
from mockpay.postgres.pool import Database, connect
from mockpay.postgres.rights import RIGHTS, excess
from mockpay.settings import Settings
from tests.support.databases import new_database
from tests.support.logs import captured_logs
from tests.support.servers import Server, start_server


class MakeRole(Protocol):
    async def __call__(self, name: str, options: str = "LOGIN") -> None: ...


GIVEN = """
SELECT relname, privilege_type
FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'public'::regnamespace AND grantee IN (0, to_regrole('mockpay_application'))
"""
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
REFUSED = [
    # The schema.
    "CREATE TABLE more ()",
    "CREATE SCHEMA more",
    "CREATE FUNCTION more() RETURNS integer LANGUAGE sql RETURN 1",
    "CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "ALTER TABLE payments DROP CONSTRAINT payments_status_is_known",
    "ALTER TABLE payments OWNER TO mockpay_application",
    "DROP TABLE rate_limits",
    "CREATE INDEX ON payments (description)",
    "CREATE RULE quietly AS ON INSERT TO audit_log DO INSTEAD NOTHING",
    "ALTER DATABASE {database} SET session_replication_role = 'replica'",
    # Triggers.
    "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    "ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only",
    "DROP TRIGGER audit_log_append_only ON audit_log",
    "CREATE TRIGGER quietly BEFORE INSERT ON audit_log EXECUTE FUNCTION refuse_audit_change()",
    "SET session_replication_role = 'replica'",
    # What is there.
    "UPDATE audit_log SET new_status = 'refunded'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "SELECT * FROM audit_log FOR UPDATE",
    "DELETE FROM payments",
    "TRUNCATE payments CASCADE",
    "DELETE FROM tenants",
    "UPDATE delivery_attempts SET response_status = 200",
    "UPDATE schema_migrations SET checksum = ''",
    # Another role.
    "SET ROLE mockpay",
    "SET SESSION AUTHORIZATION mockpay",
    "GRANT mockpay TO mockpay_application",
    "CREATE ROLE more",
    # The machine.
    "COPY payments TO PROGRAM 'cat'",
    "COPY payments TO '/tmp/payments'",
    "SELECT pg_read_file('PG_VERSION')",
]


async def test_what_the_application_can_not_do(database: Database, database_name: str) -> None:
    for statement in REFUSED:
        async with database.connection() as connection:
            try:
                await connection.execute(statement.format(database=database_name))
            except asyncpg.InsufficientPrivilegeError:
                continue
        pytest.fail(f"it can: {statement}")


async def test_it_can_not_put_a_temporary_table_before_a_real_one(database_url: str, owner_url: str) -> None:
    """The right belongs to the database, and so is not copied from the template."""
    await migrate(DatabaseAccess(database_url, owner_url))
    connection = await connect(database_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TEMPORARY TABLE audit_log ()")
    await connection.close()


async def test_it_can_give_itself_nothing(database: Database, superuser: Any) -> None:
    """Which PostgreSQL answers with a warning, and no error."""
    async with database.connection() as connection:
        await connection.execute("GRANT ALL ON audit_log TO mockpay_application")
    await test_it_has_the_rights_that_are_listed_and_no_other(superuser)


async def test_it_has_the_rights_that_are_listed_and_no_other(superuser: Any) -> None:
    given = {(row["relname"], row["privilege_type"]) for row in await superuser.fetch(GIVEN)}
    assert given == {(relation, privilege) for relation, privileges in RIGHTS.items() for privilege in privileges}


async def test_every_table_is_listed(superuser: Any) -> None:
    """One that is not would be an outage: nobody may read it."""
    assert {row["relname"] for row in await superuser.fetch(TABLES)} == set(RIGHTS)


async def test_a_migration_takes_back_what_is_not_listed(superuser: Any, database_url: str, owner_url: str) -> None:
    await superuser.execute("GRANT DELETE, TRUNCATE ON payments TO mockpay_application")
    await superuser.execute("GRANT UPDATE ON audit_log TO mockpay")  # as a dump without rights leaves it
    assert await migrate(DatabaseAccess(database_url, owner_url)) == []
    await test_it_has_the_rights_that_are_listed_and_no_other(superuser)
    assert not await superuser.fetchval("SELECT has_table_privilege('mockpay', 'audit_log', 'UPDATE')")


async def test_a_role_without_rights_does_not_start(superuser: Any, database_url: str, owner_url: str) -> None:
    await superuser.execute("REVOKE DELETE, SELECT ON requests FROM mockpay_application")
    with pytest.raises(StartupError, match="role mockpay_application lacks rights: SELECT on requests, DELETE on req"):
        await check_database(Settings(), database_url)
    await migrate(DatabaseAccess(database_url, owner_url))
    await check_database(Settings(), database_url)


async def test_the_applications_role_migrates_only_where_nothing_is_to_do(server: Server, database_url: str) -> None:
    await migrate(DatabaseAccess(database_url, database_url))
    async with new_database(server, "template0") as empty:
        with pytest.raises(StartupError, match=r"role mockpay_application may not .* set MOCKPAY_MIGRATION_DATABASE_"):
            await migrate(DatabaseAccess(server.url(empty), server.url(empty)))


@pytest.fixture
async def make_role(superuser: Any) -> AsyncIterator[MakeRole]:
    """One more role of the server, gone after the test."""
    made: list[str] = []

    async def make(name: str, options: str = "LOGIN") -> None:
        quoted = await superuser.fetchval("SELECT quote_ident($1)", name)
        await superuser.execute(f"CREATE ROLE {quoted} {options}")
        made.append(quoted)

    yield make
    for quoted in made:
        await superuser.execute(f"DROP OWNED BY {quoted}")
        await superuser.execute(f"DROP ROLE {quoted}")


async def test_who_does_not_own_the_tables_can_not_give(
    server: Server, superuser: Any, database_name: str, database_url: str, make_role: MakeRole
) -> None:
    """Such as a role that was made for migrations after another one had made the tables."""
    await superuser.execute("REVOKE INSERT ON payments FROM mockpay_application")
    await make_role("latecomer")
    access = DatabaseAccess(database_url, server.direct_url(database_name, "latecomer"))
    with pytest.raises(StartupError, match="role latecomer may not change MockPay's schema"):
        await migrate(access)
    await superuser.execute("GRANT SELECT ON schema_migrations TO latecomer")
    with pytest.raises(StartupError, match="role mockpay_application lacks rights: INSERT on payments"):
        await migrate_and_check(Settings(), access)


async def test_both_urls_lead_to_one_database(server: Server, database_name: str, owner_url: str) -> None:
    async with new_database(server, "template0") as other:
        access = DatabaseAccess(server.url(other), owner_url, migration_setting="MOCKPAY_MIGRATION_DATABASE_URL")
        with pytest.raises(StartupError, match=f"{other}, and MOCKPAY_MIGRATION_DATABASE_URL to {database_name}"):
            await migrate(access)


@pytest.fixture
def other_server() -> Iterator[Server]:
    with start_server("embedded") as started:
        yield started


async def test_both_urls_lead_to_one_server(other_server: Server, database_name: str, owner_url: str) -> None:
    """On another one there can be a database of the same name."""
    connection = await connect(other_server.direct_url("postgres"))
    await connection.execute(f"CREATE DATABASE {database_name}")
    await connection.close()
    access = DatabaseAccess(other_server.url(database_name), owner_url)
    with pytest.raises(StartupError, match=f"to {database_name} of another server; they must lead to the same"):
        await migrate(access)


async def test_one_role_for_everything_goes_too(server: Server) -> None:
    """As before there were two. Production says what it costs."""
    async with new_database(server, "template0") as name:
        url = server.url(name, OWNER)
        assert len(await migrate(DatabaseAccess(url, url))) == len(bundled_migrations())
        await check_database(Settings(), url)
        assert await warned(url)


async def test_two_roles_are_not_warned_of(database_url: str, owner_url: str) -> None:
    await migrate(DatabaseAccess(database_url, owner_url))
    assert not await warned(database_url)


async def test_who_can_become_the_owner_counts_as_the_owner(
    server: Server, database_name: str, owner_url: str, make_role: MakeRole
) -> None:
    await make_role("heir", "LOGIN NOINHERIT IN ROLE mockpay")
    url = server.direct_url(database_name, "heir")
    await migrate(DatabaseAccess(url, owner_url))
    assert await warned(url)


async def test_rights_that_an_administrator_gave_it_are_taken_back(
    superuser: Any, database_name: str, database_url: str, owner_url: str
) -> None:
    """As many do since PostgreSQL 15, where an ordinary role may make nothing in `public`."""
    await superuser.execute(f"GRANT ALL ON DATABASE {database_name} TO mockpay_application")
    await superuser.execute("GRANT ALL ON SCHEMA public TO mockpay_application")
    assert await excess(superuser, "mockpay_application") == [
        "CREATE on the database",
        "CREATE on the schema",
        "TEMPORARY on the database",
    ]
    await migrate(DatabaseAccess(database_url, owner_url))
    assert await excess(superuser, "mockpay_application") == []
    await check_database(Settings(), database_url)


async def test_what_the_owner_of_the_tables_can_not_take_back_is_told(
    server: Server, superuser: Any, database_name: str, owner_url: str, make_role: MakeRole
) -> None:
    """The database belongs to somebody else, as it does where another one made it; and the role has more by a group."""
    await superuser.execute(f"ALTER DATABASE {database_name} OWNER TO postgres")
    await make_role("writer", "LOGIN IN ROLE pg_write_all_data")
    url = server.direct_url(database_name, "writer")
    await migrate(DatabaseAccess(url, owner_url))
    told = await warnings(url)
    for right in ("TEMPORARY on the database", "UPDATE on audit_log", "DELETE on payments"):
        assert f'"{right}"' in told
    assert "CREATE" not in told
    assert '"TEMPORARY on the database"' in await warnings(url, env="development", migration_url=owner_url)
    await migrate(DatabaseAccess(url, server.direct_url(database_name)))
    assert "TEMPORARY" not in await warnings(url), "a superuser takes it back"


async def test_the_owner_of_the_database_can_take_the_schema(
    superuser: Any, database_name: str, database_url: str, owner_url: str
) -> None:
    await superuser.execute(f"ALTER DATABASE {database_name} OWNER TO mockpay_application")
    await migrate(DatabaseAccess(database_url, owner_url))
    assert f'["ownership of the database {database_name}"]' in await warnings(database_url)


async def test_a_superuser_migrates_and_the_owner_serves_and_keeps_his_rights(
    server: Server, superuser: Any, database_name: str, owner_url: str
) -> None:
    """In a database of somebody else, with a schema as it was before PostgreSQL 15: everybody may make tables there."""
    await superuser.execute(f"ALTER DATABASE {database_name} OWNER TO postgres")
    await superuser.execute("ALTER SCHEMA public OWNER TO postgres")
    await superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await superuser.execute(f"GRANT CREATE ON DATABASE {database_name} TO mockpay")
    as_superuser = await connect(server.direct_url(database_name, "postgres"))
    for application in (OWNER, APPLICATION):
        await apply(as_superuser, bundled_migrations(), application)
    await as_superuser.close()
    assert await superuser.fetchval("SELECT has_table_privilege('mockpay', 'payments', 'DELETE')")
    assert await superuser.fetchval("SELECT has_database_privilege('mockpay', current_database(), 'CREATE')")
    assert await excess(superuser, APPLICATION) == []
    as_owner = await connect(owner_url)
    more = Migration(9999, "9999_more.sql", "CREATE TABLE more ()")
    assert await apply(as_owner, [*bundled_migrations(), more], APPLICATION) == [more]
    await as_owner.close()


async def test_the_owner_of_the_database_keeps_his_rights_in_it(
    server: Server, superuser: Any, database_name: str
) -> None:
    """The tables are a superuser's, and so is the migration."""
    await superuser.execute(f"ALTER DATABASE {database_name} OWNER TO mockpay_application")
    as_superuser = await connect(server.direct_url(database_name, "postgres"))
    await apply(as_superuser, bundled_migrations(), APPLICATION)
    await as_superuser.close()
    assert await superuser.fetchval(
        "SELECT has_database_privilege('mockpay_application', current_database(), 'CREATE')"
    )


async def test_tables_of_several_owners_are_given_by_a_superuser(
    server: Server, superuser: Any, database_name: str, database_url: str, owner_url: str
) -> None:
    """As it is where now a superuser migrated, and now the owner. They stay whose they are."""
    await superuser.execute("ALTER TABLE rate_limits OWNER TO postgres")
    await superuser.execute("REVOKE ALL ON rate_limits FROM mockpay_application")
    with pytest.raises(StartupError, match=r"permission denied for table rate_limits\); set .* owns it, all of it"):
        await migrate(DatabaseAccess(database_url, owner_url))
    await migrate(DatabaseAccess(database_url, server.direct_url(database_name, "postgres")))
    await check_database(Settings(), database_url)
    assert await superuser.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'rate_limits'") == "postgres"


@pytest.mark.parametrize("options", ["LOGIN", "LOGIN NOINHERIT"])
async def test_what_a_group_may_is_told(
    server: Server, superuser: Any, database_name: str, owner_url: str, make_role: MakeRole, options: str
) -> None:
    """Whether it has the group's rights at once, or can become the group."""
    await make_role("rewriters", "CREATEROLE")
    await make_role("member", f"{options} IN ROLE rewriters, pg_write_server_files")
    await superuser.execute("GRANT DELETE, UPDATE (metadata) ON audit_log TO rewriters")
    url = server.direct_url(database_name, "member")
    await migrate(DatabaseAccess(url, owner_url))
    assert await excess(superuser, "member") == [
        "CREATEROLE",
        "DELETE on audit_log",
        "UPDATE on audit_log",
        "membership in pg_write_server_files",
    ]


async def test_a_server_that_tells_nobody_which_it_is(superuser: Any, database_url: str, owner_url: str) -> None:
    await superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
    assert await migrate(DatabaseAccess(database_url, owner_url)) == []
    await check_database(Settings(), database_url)


async def warned(url: str) -> bool:
    return "requests are served as a role that may do more than they need" in await warnings(url)


async def warnings(
    url: str, *, env: Literal["development", "production"] = "production", migration_url: str = ""
) -> str:
    settings = Settings(env=env, database_url=url, migration_database_url=migration_url or None)
    with captured_logs(json_lines=True) as output:
        await check_database(settings, url)
    return output.getvalue()


async def test_a_role_whose_name_has_to_be_quoted(superuser: Any, owner_url: str, make_role: MakeRole) -> None:
    name = "Mock\"Pay's application"
    await make_role(name)
    connection = await connect(owner_url)
    await apply(connection, bundled_migrations(), name)
    await connection.close()
    assert await superuser.fetchval("SELECT has_table_privilege($1, 'audit_log', 'INSERT')", name)


def test_the_names_of_the_roles() -> None:
    assert (APPLICATION, OWNER) == ("mockpay_application", "mockpay"), "which the statements of these tests spell out"
