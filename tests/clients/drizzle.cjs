// Drizzle ORM, over node-postgres and over postgres.js.
const { Pool } = require("pg");
const postgres = require("postgres");
const { drizzle } = require("drizzle-orm/node-postgres");
const { drizzle: drizzleJs } = require("drizzle-orm/postgres-js");
const { bigint, integer, jsonb, numeric, pgEnum, pgTable, primaryKey, serial, text } = require("drizzle-orm/pg-core");
const { and, asc, count, eq, gt, ilike, relations, sql } = require("drizzle-orm");

const mood = pgEnum("mood", ["glad", "calm", "sad"]);
const people = pgTable("people", { id: bigint({ mode: "number" }).primaryKey(), name: text().notNull(), mood: mood().notNull() });
const sales = pgTable("sales", { id: serial().primaryKey(), buyer: bigint({ mode: "number" }), total: numeric(), details: jsonb() });
const lines = pgTable("sale_lines", { sale: integer(), position: integer(), item: text(), price: numeric() }, (t) => [primaryKey({ columns: [t.sale, t.position] })]);
const schema = {
  people, sales, lines,
  personRelations: relations(people, ({ many }) => ({ sales: many(sales) })),
  saleRelations: relations(sales, ({ one, many }) => ({ person: one(people, { fields: [sales.buyer], references: [people.id] }), lines: many(lines) })),
  lineRelations: relations(lines, ({ one }) => ({ sale: one(sales, { fields: [lines.sale], references: [sales.id] }) })),
};

async function script(db) {
  const show = (value) => console.log(JSON.stringify(value));
  show(await db.select().from(people).where(and(ilike(people.name, "%n%"), eq(people.mood, "glad"))));
  show(await db.select({ name: people.name, n: count(sales.id) }).from(people).leftJoin(sales, eq(sales.buyer, people.id)).groupBy(people.id).orderBy(asc(people.id)));
  show(await db.query.people.findMany({ with: { sales: { limit: 2, orderBy: (s) => s.id, with: { lines: true } } }, orderBy: (p) => p.id }));
  show(await db.insert(lines).values({ sale: 8, position: 20, item: "drizzled", price: "1" }).onConflictDoUpdate({ target: [lines.sale, lines.position], set: { price: sql`${lines.price} + 1` } }).returning());
  show(await db.update(sales).set({ details: { new: true } }).where(gt(sales.total, "400")).returning({ id: sales.id }));
  show(await db.delete(lines).where(eq(lines.position, 20)).returning());
  const byId = db.select().from(people).where(eq(people.id, sql.placeholder("id"))).prepare("by_id");
  show([await byId.execute({ id: 1 }), await byId.execute({ id: 2 })]);
  await db.transaction(async (t) => {
    await t.execute(sql`select 1`);
    await t.transaction(async (inner) => { await inner.insert(lines).values({ sale: 9, position: 30, item: "x", price: "1" }); inner.rollback(); }).catch((error) => show(error.constructor.name));
    show(await t.$count(lines));
  });
}

async function work() {
  const pool = new Pool();
  await script(drizzle(pool, { schema }));
  await pool.end();
  const client = postgres({ max: 2, onnotice: () => {} });
  await script(drizzleJs(client, { schema }));
  const rows = [];
  await client`select id from sales order by id`.cursor(12, (part) => rows.push(part.length));
  console.log(rows.join(), (await client.begin((t) => [t`select 1 as a`, t`select 2 as b`])).length);
  await client.end();
}

async function denied() {
  const pool = new Pool({ max: 1 });
  const db = drizzle(pool, { schema });
  const reason = (error) => error.cause ?? error;
  await db.execute(sql`truncate sale_lines`).catch((error) => console.log("autocommit", error.constructor.name, reason(error).code, reason(error).message.slice(0, 27)));
  console.log(await db.$count(people));
  await db.transaction(async (t) => {
    await t.update(people).set({ name: sql`name` });
    await t.execute(sql`truncate sale_lines`).catch((error) => console.log("transaction", error.constructor.name, reason(error).code));
    await t.execute(sql`select 1`).catch((error) => { console.log(reason(error).code); throw error; });
  }).catch(() => {});
  console.log(await db.$count(people));
  await pool.end();
  const client = postgres({ max: 1 });
  await client`truncate sale_lines`.catch((error) => console.log("postgres.js", error.constructor.name, error.code));
  console.log((await client`select count(*) from people`)[0].count);
  await client.end();
}

({ work, denied })[process.argv[2]]().catch((error) => { console.error(error); process.exit(1); });
