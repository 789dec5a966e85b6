"""psycopg2: everything goes by simple queries."""
import io
import select
import sys

import psycopg2
import psycopg2.extensions
import psycopg2.extras


def work():
    c = psycopg2.connect("")
    print(c.server_version, c.encoding, c.get_parameter_status("TimeZone"))
    with c, c.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cur:
        cur.execute("select * from people where name like %s order by id", ("%n%",))
        print([dict(row) for row in cur])
        psycopg2.extras.execute_values(
            cur, "insert into sale_lines values %s", [(5, n, "it's; -- %", n) for n in range(10, 400)], page_size=100
        )
        psycopg2.extras.execute_batch(cur, "update sale_lines set price = %s where sale = 5 and position = %s", [(n, n) for n in range(10, 60)])
        cur.execute("select count(*), sum(price) from sale_lines where sale = 5")
        print(cur.fetchall())
    with c, c.cursor("server_side", withhold=True) as cur:
        cur.itersize = 5
        cur.execute("select id, total from sales order by id")
        print(sum(total for _, total in cur))
    with c, c.cursor() as cur:
        cur.copy_expert("copy measures from stdin with (format csv)", io.StringIO("2026-05-01,east,1\n2026-05-02,east,2\n"))
        out = io.StringIO()
        cur.copy_to(out, "sale_lines", columns=("sale", "position"))
        print(len(out.getvalue()), cur.rowcount)
        cur.execute("select mogrify.* from (select 1 as a, array[1,2] as b, '{\"x\":1}'::jsonb as c) as mogrify")
        print(cur.fetchone())
        cur.execute("begin; savepoint a; select 1; rollback to a; select 2")
        print(cur.fetchone())
    c.set_session(isolation_level="SERIALIZABLE", readonly=True)
    with c, c.cursor() as cur:
        cur.execute("show transaction_isolation")
        print(cur.fetchone())
    c.set_session(isolation_level="READ COMMITTED", readonly=False, autocommit=True)
    with c.cursor() as cur:
        cur.execute("listen news; notify news, 'hello'")
        select.select([c], [], [], 5)
        c.poll()
        print([(n.channel, n.payload) for n in c.notifies])
    c.close()


def denied():
    c = psycopg2.connect("")
    c.autocommit = True
    with c.cursor() as cur:
        try:
            cur.execute("truncate sale_lines")
        except psycopg2.errors.InsufficientPrivilege as error:
            print("autocommit", type(error).__name__, error.pgcode, error.diag.message_primary[:27])
        cur.execute("select count(*) from people")
        print(cur.fetchone())
    c.autocommit = False
    with c.cursor() as cur:
        cur.execute("update people set name = name")
        try:
            cur.execute("select 1; truncate sale_lines")
        except psycopg2.errors.InsufficientPrivilege as error:
            print("transaction", type(error).__name__, error.pgcode)
        try:
            cur.execute("select 1")
        except psycopg2.errors.InFailedSqlTransaction as error:
            print(type(error).__name__, error.pgcode)
        c.rollback()
        cur.execute("select count(*) from people")
        print(cur.fetchone())


{"work": work, "denied": denied}[sys.argv[1]]()
