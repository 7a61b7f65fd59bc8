"""How PostgreSQL would run a statement."""

from mockpay.postgres.pool import Connection


async def generic_plan(connection: Connection, statement: str, *arguments: object) -> str:
    """The plan that a prepared statement ends up with, which knows no arguments. They are given as SQL."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute("DEALLOCATE ALL")
    await connection.execute(f"PREPARE explained AS {statement}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE explained ({', '.join(map(str, arguments))})")
    return "\n".join(row[0] for row in rows)
