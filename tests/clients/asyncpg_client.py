"""asyncpg: binary, prepared, with a statement cache and introspection of types."""
import asyncio
import datetime
import sys

import asyncpg


async def work():
    c = await asyncpg.connect()
    print(c.get_server_version()[:2], c.get_settings().server_encoding)
    print(await c.fetchval("select count(*) from people where mood = $1", "calm"))
    # An enum, a domain, an array, a composite: each is looked up in the catalogue.
    print(await c.fetch("select p, p.mood, p.address, array[p.mood] as moods from people p order by id"))
    await c.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=lambda v: "json " + v)
    print(await c.fetchrow("select details, tags, receipt, number from sales where id = $1", 3))
    statement = await c.prepare("select id, total from sales where total > $1 order by id limit $2")
    print(statement.get_parameters(), [a.name for a in statement.get_attributes()])
    print(await statement.fetch(100, 3), await statement.fetchval(300, 1))
    async with c.transaction(isolation="repeatable_read"):
        print([r["id"] async for r in c.cursor("select id from sales order by id limit 30", prefetch=7)])
        cursor = await c.cursor("select id from sales order by id")
        print(await cursor.fetch(3), await cursor.forward(2), await cursor.fetchrow())
    print(await c.executemany("insert into sale_lines values ($1, $2, $3, $4)", [(6, n, "many", n) for n in range(10, 300)]))
    print(await c.execute("update sale_lines set price = 0 where sale = 6; select 1"))
    for n in range(300):
        assert await c.fetchval(f"select {n} + $1::int", n) == 2 * n  # overflows the statement cache
    rows = [(datetime.date(2026, 4, 1), "west", n / 2) for n in range(1000)]
    print(await c.copy_records_to_table("measures", records=rows))
    out = bytearray()

    async def collect(data):
        out.extend(data)

    print(await c.copy_from_query("select id, name from people where id < $1 order by id", 4, output=collect, format="csv"), bytes(out))
    print(await c.copy_from_table("measures_2026", output=collect), len(out))
    heard = asyncio.Future()
    await c.add_listener("news", lambda *a: heard.set_result(a[2:]))
    await c.execute("select pg_notify('news', 'hello')")
    print(await asyncio.wait_for(heard, 5))
    await c.remove_listener("news", lambda *a: None)
    try:
        await c.fetch("select pg_sleep(20)", timeout=0.3)
    except asyncio.TimeoutError as error:
        print(type(error).__name__)
    try:
        async with c.transaction():
            await c.execute("insert into sale_lines values (6, 10, '', 0)")
    except asyncpg.UniqueViolationError as error:
        print(error.sqlstate, error.constraint_name)
    await c.reload_schema_state()
    await c.close()
    async with asyncpg.create_pool(min_size=2, max_size=3) as pool:  # resets each connection it takes back
        print(sorted(await asyncio.gather(*[pool.fetchval("select $1::int", n) for n in range(12)])))
        async with pool.acquire() as c:
            await c.execute("set search_path = archive")
            print(await c.fetchval("select count(*) from sales"))
        print(await asyncio.gather(*[pool.fetchval("select count(*) from sales") for _ in range(3)]))


async def denied():
    c = await asyncpg.connect()
    try:
        await c.execute("truncate sale_lines")
    except asyncpg.InsufficientPrivilegeError as error:
        print("autocommit", type(error).__name__, error.sqlstate, error.message[:27])
    try:
        await c.fetch("truncate sale_lines")
    except asyncpg.InsufficientPrivilegeError as error:
        print("prepared", type(error).__name__, error.sqlstate)
    print(await c.fetchval("select count(*) from people"))
    transaction = c.transaction()
    await transaction.start()
    await c.execute("update people set name = name")
    try:
        await c.execute("truncate sale_lines")
    except asyncpg.InsufficientPrivilegeError as error:
        print("transaction", type(error).__name__, error.sqlstate)
    try:
        await c.fetchval("select 1")
    except asyncpg.InFailedSQLTransactionError as error:
        print(type(error).__name__, error.sqlstate)
    await transaction.rollback()
    print(await c.fetchval("select count(*) from people"))
    await c.close()


asyncio.run({"work": work, "denied": denied}[sys.argv[1]]())
