"""A migrated template database, and clones of it: each test writes for real, and starts from nothing."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mockpay.postgres.embedded import APPLICATION, OWNER
from mockpay.postgres.migrate import bundled_migrations, migrate
from mockpay.postgres.pool import connect
from tests.support.servers import Server

TEMPLATE = "mockpay_template"
UNEVEN = """
SELECT figure, label, currency, kept.rows, counted.rows, kept.total, counted.total
FROM (SELECT figure, label, currency, sum(rows) AS rows, sum(total) AS total FROM rollups GROUP BY 1, 2, 3) AS kept
FULL JOIN (
    SELECT figure, label, currency, sum(rows) AS rows, sum(total) AS total FROM counted_rollups GROUP BY 1, 2, 3
) AS counted USING (figure, label, currency)
WHERE coalesce(kept.rows, 0) <> coalesce(counted.rows, 0) OR coalesce(kept.total, 0) <> coalesce(counted.total, 0)
UNION ALL
SELECT 'creations', tenant_id::text, '', creations, payments.made, 0, 0
FROM creation_counters
CROSS JOIN LATERAL (
    SELECT count(*) AS made FROM payments WHERE payments.tenant_id = creation_counters.tenant_id
) AS payments
WHERE creations <> payments.made
"""


async def make_template(server: Server) -> None:
    await as_superuser(server, f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}")
    # Past the pooler, which would keep a connection that stands in the way of cloning.
    connection = await connect(server.direct_url(TEMPLATE, OWNER))
    await migrate(connection, bundled_migrations(), APPLICATION)
    await connection.close()


@asynccontextmanager
async def new_database(server: Server, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    await as_superuser(server, f"CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER}")
    try:
        yield name
    finally:
        await as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


async def as_superuser(server: Server, statement: str) -> None:
    connection = await connect(server.direct_url("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def uneven_rollups(server: Server, name: str) -> list[tuple[str, ...]]:
    """Figures of a database that are not what a count of the rows gives: none, whatever was done to it."""
    connection = await connect(server.direct_url(name))
    try:
        return [tuple(map(str, row)) for row in await connection.fetch(UNEVEN)]
    finally:
        await connection.close()
