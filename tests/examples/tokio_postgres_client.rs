//! tokio-postgres: simple, prepared, pipelined, COPY, portals, cancel. Run by
//! the tests of clients, once directly and once through lockgate.
#![forbid(unsafe_code)]

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match std::env::args().nth(1).as_deref() {
        Some("work") => work().await,
        Some("denied") => denied().await,
        _ => Err("work or denied".into()),
    }
}

/// A connection by the variables that every client of the tests is given, and
/// the payloads of its notifications.
async fn connect() -> Result<(Client, tokio::sync::mpsc::UnboundedReceiver<String>)> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(std::env::var("PGHOST")?)
        .user(std::env::var("PGUSER")?)
        .password(std::env::var("PGPASSWORD")?)
        .dbname(std::env::var("PGDATABASE")?)
        .application_name("shop");
    let (client, mut connection) = config.connect(NoTls).await?;
    let (heard, notifications) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let Ok(AsyncMessage::Notification(notification)) = message {
                // Nobody may be listening any more.
                let _ = heard.send(notification.payload().to_owned());
            }
        }
    });
    Ok((client, notifications))
}

async fn work() -> Result {
    let (mut client, mut notifications) = connect().await?;
    for message in client
        .simple_query("select id, name, born from people order by id; select 1 where false; update sales set total = total where id = 1")
        .await?
    {
        match message {
            SimpleQueryMessage::Row(row) => println!("{:?} {:?}", row.get(1), row.get(2)),
            SimpleQueryMessage::CommandComplete(count) => println!("{count} rows"),
            _ => {}
        }
    }
    for row in client
        .query(
            "select id, name, tags from people join sales using (id) where id < $1 order by id",
            &[&4_i64],
        )
        .await?
    {
        println!(
            "{} {} {:?}",
            row.get::<_, i64>(0),
            row.get::<_, &str>(1),
            row.get::<_, Vec<String>>(2)
        );
    }
    // Enums and domains are looked up in the catalogue.
    let by_mood = client
        .prepare("select address from people where mood = $1")
        .await?;
    println!("{:?} {:?}", by_mood.params(), by_mood.columns());
    let by_id = client
        .prepare("select name from people where id = $1")
        .await?;
    let ids = [1_i64, 2, 3, 4, 1, 2, 3, 4];
    let pipelined = ids.iter().map(|id| {
        let (client, by_id) = (&client, &by_id);
        async move {
            client
                .query_one(by_id, &[id])
                .await
                .map(|row| row.get::<_, String>(0))
        }
    });
    println!("{:?}", future::try_join_all(pipelined).await?);

    let transaction = client.transaction().await?;
    let inserted = transaction
        .execute(
            "insert into sale_lines values ($1, $2, $3, 4.5)",
            &[&14_i32, &70_i32, &"it's; --"],
        )
        .await?;
    let portal = transaction
        .bind("select id from sales order by id", &[])
        .await?;
    let mut parts = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 15).await?;
        parts.push(rows.len());
        if rows.len() < 15 {
            break;
        }
    }
    println!("{inserted} {parts:?}");
    transaction.commit().await?;
    let error = client
        .execute("insert into sale_lines values (14, 70, '', 0)", &[])
        .await
        .expect_err("a key that is there");
    println!(
        "{:?} {:?}",
        error.code(),
        error.as_db_error().and_then(|error| error.constraint())
    );

    let sink = client.copy_in("copy measures from stdin").await?;
    let mut sink = pin!(sink);
    for number in 0..500 {
        sink.send(bytes::Bytes::from(format!("2026-08-01\trust\t{number}\n")))
            .await?;
    }
    println!("{} copied", sink.finish().await?);
    let copied: Vec<bytes::Bytes> = client
        .copy_out("copy (select id, name from people order by id) to stdout (format csv)")
        .await?
        .try_collect()
        .await?;
    println!("{:?}", copied.concat());
    let rows = client
        .query_raw(
            "select price from sale_lines where sale = $1 order by position",
            [14_i32],
        )
        .await?;
    println!("{}", pin!(rows).count().await);

    let cancel = client.cancel_token();
    let (slept, cancelled) = future::join(client.batch_execute("select pg_sleep(20)"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel_query(NoTls).await
    })
    .await;
    cancelled?;
    let error = slept.expect_err("cancelled");
    println!("{:?}", error.code() == Some(&SqlState::QUERY_CANCELED));

    client
        .batch_execute("listen news; notify news, 'hello'")
        .await?;
    println!(
        "{:?}",
        tokio::time::timeout(Duration::from_secs(5), notifications.recv()).await?
    );
    println!(
        "{}",
        client
            .query_one("select count(*) from archive.sales", &[])
            .await?
            .get::<_, i64>(0)
    );
    Ok(())
}

async fn denied() -> Result {
    let (client, _) = connect().await?;
    for (what, result) in [
        (
            "autocommit",
            client.batch_execute("truncate sale_lines").await,
        ),
        (
            "prepared",
            client.execute("truncate sale_lines", &[]).await.map(drop),
        ),
    ] {
        let error = result.expect_err("forbidden");
        let message = error.as_db_error().map_or("", |error| error.message());
        println!(
            "{what} {:?} {}",
            error.code(),
            &message[..message.len().min(27)]
        );
    }
    let count = || client.query_one("select count(*) from people", &[]);
    println!("{}", count().await?.get::<_, i64>(0));
    client
        .batch_execute("begin; update people set name = name")
        .await?;
    for (what, sql) in [("transaction", "truncate sale_lines"), ("then", "select 1")] {
        let error = client.execute(sql, &[]).await.expect_err("forbidden");
        println!("{what} {:?}", error.code());
    }
    client.batch_execute("rollback").await?;
    println!("{}", count().await?.get::<_, i64>(0));
    Ok(())
}
