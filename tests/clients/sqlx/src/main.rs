//! sqlx: pool, prepared and simple statements, streams, savepoints, COPY,
//! listeners. Run by the tests of clients, once directly and once through
//! lockgate.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolCopyExt, PgPoolOptions,
};
use sqlx::{Acquire, AssertSqlSafe, Column, Connection, QueryBuilder, Row, TypeInfo};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match std::env::args().nth(1).as_deref() {
        Some("work") => work().await,
        Some("denied") => denied().await,
        _ => Err("work or denied".into()),
    }
}

/// By the variables that every client of the tests is given.
fn options() -> PgConnectOptions {
    PgConnectOptions::new()
        .application_name("shop")
        .statement_cache_capacity(8)
}

async fn work() -> Result {
    let pool = PgPoolOptions::new()
        .max_connections(3)
        .connect_with(options())
        .await?;
    read(&pool).await?;
    write(&pool).await?;
    copy(&pool).await?;

    // A statement that takes too long is dropped with its connection.
    let sleep = sqlx::query("select pg_sleep(20)").execute(&pool);
    println!(
        "{}",
        tokio::time::timeout(Duration::from_millis(200), sleep)
            .await
            .is_err()
    );
    println!("{}", pool.acquire().await?.ping().await.is_ok());

    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen_all(["news", "weather"]).await?;
    sqlx::query("select pg_notify('weather', $1)")
        .bind("rain")
        .execute(&pool)
        .await?;
    let heard = tokio::time::timeout(Duration::from_secs(5), listener.recv()).await??;
    println!("{} {}", heard.channel(), heard.payload());
    // It has a connection of the pool's, which waits for all of them.
    drop(listener);
    pool.close().await;
    Ok(())
}

async fn read(pool: &PgPool) -> Result {
    type Sale = (i64, String, Vec<String>, Option<f64>);
    let sales: Vec<Sale> = sqlx::query_as(
        "select p.id, name, tags, total::float8 from people p join sales s on s.buyer = p.id
         where s.id < $1 and name = any($2) order by s.id",
    )
    .bind(9)
    .bind(["Ann", "李"].as_slice())
    .fetch_all(pool)
    .await?;
    println!("{sales:?}");
    // Types that are not built in are looked up in the catalogue.
    let row = sqlx::query(
        "select id, address, mood, seen, array[mood] as moods from people where id = $1",
    )
    .bind(1_i64)
    .fetch_one(pool)
    .await?;
    for column in row.columns() {
        println!("{} {}", column.name(), column.type_info().name());
    }
    // More texts than the cache of statements holds, twice.
    for number in (0..12).chain(0..12) {
        let sql = AssertSqlSafe(format!("select {number} + $1 as sum_{number}"));
        let sum: i32 = sqlx::query_scalar(sql).bind(1).fetch_one(pool).await?;
        print!("{sum} ");
    }
    println!();
    let mut stream = sqlx::query_as::<_, (i32,)>("select id from sales order by id").fetch(pool);
    let mut sum = 0;
    while let Some((id,)) = stream.try_next().await? {
        sum += id;
    }
    drop(stream);
    let none = sqlx::query("select 1 from people where id = $1").bind(-1_i64);
    println!("{sum} {}", none.fetch_optional(pool).await?.is_none());
    // The simple protocol: several statements.
    let rows = sqlx::raw_sql(
        "select 1 as n; select 2; update sales set total = total where id < 3; select 3",
    )
    .fetch_all(pool)
    .await?;
    println!(
        "{:?}",
        rows.iter()
            .map(|row| row.get::<i32, _>(0))
            .collect::<Vec<_>>()
    );
    Ok(())
}

async fn write(pool: &PgPool) -> Result {
    let mut transaction = pool.begin().await?;
    let mut lines = QueryBuilder::new("insert into sale_lines (sale, position, item, price) ");
    lines.push_values(10..14, |mut row, position| {
        row.push_bind(7)
            .push_bind(position)
            .push_bind("it's; --")
            .push_bind(f64::from(position))
            .push_unseparated("::numeric");
    });
    println!(
        "{}",
        lines
            .build()
            .execute(&mut *transaction)
            .await?
            .rows_affected()
    );
    let mut savepoint = transaction.begin().await?;
    let error = sqlx::query("insert into sale_lines values (7, 10, '', 0)")
        .execute(&mut *savepoint)
        .await
        .expect_err("a key that is there");
    println!("{}", told(&error));
    savepoint.rollback().await?;
    let deleted: Vec<(i32, String)> = sqlx::query_as(
        "delete from sale_lines where sale = $1 and position > $2 returning position, item",
    )
    .bind(7)
    .bind(11)
    .fetch_all(&mut *transaction)
    .await?;
    println!("{deleted:?}");
    transaction.commit().await?;
    let mut undone = pool.begin().await?;
    sqlx::query("delete from sale_lines")
        .execute(&mut *undone)
        .await?;
    drop(undone);
    let left: i64 = sqlx::query_scalar("select count(*) from sale_lines")
        .fetch_one(pool)
        .await?;
    println!("{left}");
    // Many rows in two parameters.
    let updated = sqlx::query(
        "update sales set total = new.total from unnest($1::int[], $2::float8[]) as new(id, total) where sales.id = new.id",
    )
    .bind([1, 2, 3].as_slice())
    .bind([1.5, 2.5, 3.5].as_slice())
    .execute(pool)
    .await?;
    println!("{}", updated.rows_affected());
    Ok(())
}

async fn copy(pool: &PgPool) -> Result {
    let mut sink = pool.copy_in_raw("copy measures from stdin").await?;
    for number in 0..500 {
        let row = format!("2026-08-01\trust\t{number}\n");
        sink.send(row.as_bytes()).await?;
    }
    println!("{} copied", sink.finish().await?);
    let copied: Vec<_> = pool
        .copy_out_raw("copy (select id, name from people order by id) to stdout (format csv)")
        .await?
        .try_collect()
        .await?;
    println!("{:?}", copied.concat());
    Ok(())
}

/// SQLSTATE, constraint, and how the message begins.
fn told(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else {
        return error.to_string();
    };
    let message = error.message();
    format!(
        "{} {:?} {}",
        error.code().unwrap_or_default(),
        error.constraint(),
        &message[..message.len().min(27)]
    )
}

async fn denied() -> Result {
    let mut connection = PgConnection::connect_with(&options()).await?;
    let simple = sqlx::raw_sql("truncate sale_lines")
        .execute(&mut connection)
        .await;
    println!("autocommit {}", told(&simple.expect_err("forbidden")));
    let prepared = sqlx::query("truncate sale_lines")
        .execute(&mut connection)
        .await;
    println!("prepared {}", told(&prepared.expect_err("forbidden")));
    println!("{}", people(&mut connection).await?);
    let mut transaction = Connection::begin(&mut connection).await?;
    sqlx::query("update people set name = name")
        .execute(&mut *transaction)
        .await?;
    for sql in ["truncate sale_lines", "select 1"] {
        let error = sqlx::query(sql).execute(&mut *transaction).await;
        println!("transaction {}", told(&error.expect_err("forbidden")));
    }
    transaction.rollback().await?;
    println!("{}", people(&mut connection).await?);
    Ok(())
}

async fn people(connection: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar("select count(*) from people");
    Ok(count.fetch_one(connection).await?)
}
