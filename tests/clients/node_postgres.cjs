// node-postgres: pg, with its pool, pg-cursor and pg-query-stream.
const { Client, Pool, types } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

async function work() {
  const c = new Client();
  await c.connect();
  const show = (result) => console.log(JSON.stringify(result.rows));
  show(await c.query("select current_user, current_database(), version()"));
  show(await c.query("select * from people where mood = $1 order by id", ["calm"]));
  show(await c.query({ text: "select id, total, tags, details from sales where id = any($1) order by id", values: [[1, 2, 3]], rowMode: "array" }));
  for (let n = 0; n < 4; n++) show(await c.query({ name: "by-id", text: "select name from people where id = $1::bigint", values: [n] }));
  const added = await c.query("insert into sales (buyer, total, details, receipt) values ($1, $2, $3, $4) returning total, details, receipt",
    [1, "12.50", { k: [1, null] }, Buffer.from([0, 255])]);
  show(added);
  console.log((await c.query("select 1 as a; select 2 as b; update sales set total = total where id < 3")).map((r) => [r.command, r.rowCount, r.rows]));
  await c.query("begin");
  await c.query("savepoint s");
  try {
    await c.query("insert into sale_lines values (1, 1, '', 0)");
  } catch (error) {
    console.log(error.code, error.constraint, error.table);
    await c.query("rollback to s");
  }
  await c.query("commit");
  const cursor = c.query(new Cursor("select id from sales order by id limit $1", [25]));
  for (let rows; (rows = await cursor.read(10)).length; ) console.log(rows.map((r) => r.id).join());
  await cursor.close();
  let sum = 0;
  for await (const row of c.query(new QueryStream("select price from sale_lines", [], { batchSize: 9 }))) sum += Number(row.price);
  console.log(sum);
  const heard = new Promise((done) => c.on("notification", (n) => done([n.channel, n.payload])));
  await c.query("listen news");
  await c.query("select pg_notify($1, $2)", ["news", "hello"]);
  console.log(await heard);
  await c.query("set search_path to archive, public");
  show(await c.query("select count(*) from sales"));
  show(await c.query("select name from people where id = $1", [1]));
  await c.end();
  const pool = new Pool({ max: 3 });
  console.log((await Promise.all([...Array(9).keys()].map((n) => pool.query("select $1::int as n", [n])))).map((r) => r.rows[0].n).join());
  await pool.end();
}

async function denied() {
  const c = new Client();
  await c.connect();
  for (const values of [undefined, []]) {
    await c.query("truncate sale_lines", values).catch((error) => console.log("autocommit", error.constructor.name, error.code, error.message.slice(0, 27)));
  }
  console.log((await c.query("select count(*) from people")).rows);
  await c.query("begin");
  await c.query("update people set name = name");
  await c.query("truncate sale_lines").catch((error) => console.log("transaction", error.constructor.name, error.code));
  await c.query("select 1").catch((error) => console.log(error.code));
  await c.query("rollback");
  console.log((await c.query("select count(*) from people")).rows);
  await c.end();
}

({ work, denied })[process.argv[2]]().catch((error) => { console.error(error); process.exit(1); });
