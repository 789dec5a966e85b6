"""psycopg 3: sync and async, text and binary, pipelines, server-side cursors, COPY."""
import asyncio
import datetime
import decimal
import sys
import uuid

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb


def work():
    with psycopg.connect() as c:
        print(c.execute("select current_user, current_database(), version()").fetchone())
        print(c.info.server_version, c.info.parameter_status("server_encoding"), c.info.dbname)
        row = c.execute(
            "insert into sales (buyer, total, tags, details, receipt, number) values (%s, %s, %s, %s, %s, %s) returning *",
            (1, decimal.Decimal("12.34"), ["a", "b c", None], Jsonb({"k": [1, None]}), b"\x00\xff", uuid.UUID(int=7)),
        ).fetchone()
        print(row)
        print(c.execute("update sales set total = total + 1 where buyer = %(b)s", {"b": 2}).rowcount)
        print(c.execute("delete from sale_lines where sale = any(%s)", ([1, 2, 3],)).rowcount)
        for binary in (False, True):
            with c.cursor(binary=binary, row_factory=dict_row) as cur:
                cur.execute("select * from people where seen < %s order by id", (datetime.datetime.now(datetime.timezone.utc),))
                print(cur.fetchall(), [d.type_code for d in cur.description])
        # Prepared on the server from the fifth execution on.
        print([c.execute("select total from sales where id = %s", (n,)).fetchone()[0] for n in range(1, 12)])
        with c.cursor() as cur:
            cur.executemany("insert into sale_lines values (%s, %s, %s, %s)", [(4, n, "more", n) for n in range(10, 60)])
            print(cur.rowcount)
            cur.executemany("select %s::int", [(1,), (2,)], returning=True)
            print(cur.fetchone(), cur.nextset(), cur.fetchone())
        with c.cursor("named", scrollable=True) as cur:
            cur.itersize = 7
            cur.execute("select id from sales order by id")
            print(sum(r[0] for r in cur))
            cur.scroll(3, mode="absolute")
            print(cur.fetchmany(2))
        with c.pipeline() as p:
            many = [c.execute("select %s::int * 2", (n,)) for n in range(5)]
            p.sync()
            last = c.execute("select count(*) from people")
        print([cur.fetchone() for cur in many], last.fetchone())
        try:
            with c.transaction():
                with c.transaction():
                    c.execute("insert into sale_lines values (4, 10, 'twice', 0)")
        except psycopg.errors.UniqueViolation as error:
            print(error.sqlstate, error.diag.constraint_name)
        for options in ("", "(format csv, header)", "(format binary)"):
            with c.cursor() as cur:
                with cur.copy(f"copy (select id, name, mood, born from people order by id) to stdout {options}") as copy:
                    print(b"".join(bytes(part) for part in copy))
        with c.cursor() as cur:
            with cur.copy("copy measures from stdin") as copy:
                for n in range(2000):
                    copy.write_row((datetime.date(2026, 3, 1), "south", n / 8))
            with cur.copy("copy measures (at, place, value) from stdin (format binary)") as copy:
                copy.set_types(["date", "text", "float8"])
                copy.write_row((datetime.date(2026, 3, 2), None, 1.5))
        print(c.execute("select count(*), sum(value) from measures where place is distinct from 'north'").fetchone())
        c.execute("listen news")
        c.commit()
        c.execute("select pg_notify('news', 'hello')")
        c.commit()
        print([(n.channel, n.payload) for n in c.notifies(timeout=5, stop_after=1)])
        info = psycopg.types.TypeInfo.fetch(c, "mood")
        print(info.name, psycopg.types.enum.EnumInfo.fetch(c, "mood").labels)
        print(psycopg.types.composite.CompositeInfo.fetch(c, "people").field_names)
    asyncio.run(asynchronous())


async def asynchronous():
    async with await psycopg.AsyncConnection.connect(autocommit=True) as c:
        async with c.cursor(row_factory=class_row(dict)) as cur:
            await cur.execute("select name, total from buyers order by name")
            print(await cur.fetchall())
        async with c.transaction():
            await c.execute("set local statement_timeout = '5s'")
            print(await (await c.execute("show statement_timeout")).fetchone())
        try:
            await asyncio.wait_for(c.execute("select pg_sleep(20)"), 0.3)
        except (asyncio.TimeoutError, psycopg.errors.QueryCanceled) as error:
            print(type(error).__name__)
        print(await (await c.execute("select count(*) from archive.sales")).fetchone())
        async with c.pipeline():
            cursors = [await c.execute("select %s::text", (n,)) for n in range(3)]
        print([await cur.fetchone() for cur in cursors])


def denied():
    with psycopg.connect(autocommit=True) as c:
        try:
            c.execute("truncate sale_lines")
        except psycopg.errors.InsufficientPrivilege as error:
            print("autocommit", type(error).__name__, error.sqlstate, error.diag.message_primary[:27])
        print(c.execute("select count(*) from people").fetchone())
        with c.pipeline():
            first = c.execute("select 1")
            try:
                c.execute("truncate sale_lines")
                c.execute("select 2").fetchone()
            except psycopg.errors.InsufficientPrivilege as error:
                print("pipeline", type(error).__name__, error.sqlstate)
        print(first.fetchone(), c.execute("select count(*) from people").fetchone())
    with psycopg.connect() as c:
        c.execute("update people set name = name")
        try:
            c.execute("truncate sale_lines")
        except psycopg.errors.InsufficientPrivilege as error:
            print("transaction", type(error).__name__, error.sqlstate)
        try:
            c.execute("select 1")
        except psycopg.errors.InFailedSqlTransaction as error:
            print(type(error).__name__, error.sqlstate)
        c.rollback()
        print(c.execute("select count(*) from people").fetchone())


{"work": work, "denied": denied}[sys.argv[1]]()
