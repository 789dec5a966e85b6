use anyhow::Context;
use lockgate_ipc::{Channel, Look, Looked, Order, Role, from_memfd, pair};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Supervisor;
use super::child::Child;

impl Supervisor {
    /// Has keeper look into a database. The answer comes in its own time, and
    /// holds up nothing else.
    pub(super) async fn look(&self, look: Look, answer: oneshot::Sender<Value>) {
        let asked = match self.children.get(&Role::Keeper) {
            Some(keeper) => ask(keeper, &look).await,
            None => Err(anyhow::anyhow!(
                "keeper is being started; try again in a moment"
            )),
        };
        tokio::spawn(async move {
            let result = match asked {
                Ok(channel) => read(&channel).await,
                Err(error) => Err(error),
            };
            let result = result.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
            // Who asked may have gone.
            let _ = answer.send(result);
        });
    }
}

async fn ask(keeper: &Child, look: &Look) -> anyhow::Result<Channel> {
    let (near, far) = pair()?;
    let channel = Channel::new(near)?;
    keeper.send(&Order::Look, Some(far)).await?;
    channel.send(look, None).await?;
    Ok(channel)
}

async fn read(channel: &Channel) -> anyhow::Result<Value> {
    let answer = channel.receive::<Looked>().await;
    match answer.context("keeper ended before it answered")? {
        (Looked::Found, Some(fd)) => {
            let text = tokio::task::spawn_blocking(move || from_memfd(fd)).await??;
            Ok(serde_json::from_slice(&text)?)
        }
        (Looked::Found, None) => anyhow::bail!("keeper sent no answer"),
        (Looked::Refused(why), _) => Ok(json!({ "error": why })),
    }
}
