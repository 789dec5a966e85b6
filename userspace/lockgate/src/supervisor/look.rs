use anyhow::{Context, bail};
use lockgate_ipc::{Channel, Look, Looked, Order, Role, from_memfd, pair};
use serde_json::json;
use tokio::sync::oneshot;

use super::Supervisor;
use super::child::Child;

impl Supervisor {
    /// Has keeper look into a database. The answer comes in its own time, and
    /// holds up nothing else.
    pub(super) async fn look(&self, look: Look, answer: oneshot::Sender<String>) {
        let asked = match self.children.get(&Role::Keeper) {
            Some(keeper) => ask(keeper, &look).await,
            None => Err(anyhow::anyhow!(
                "keeper is being started; try again in a moment"
            )),
        };
        tokio::spawn(async move {
            let found = match asked {
                Ok(channel) => read(&channel).await,
                Err(error) => Err(error),
            };
            let error = |error| json!({ "error": format!("{error:#}") }).to_string();
            // Who asked may have gone.
            let _ = answer.send(found.unwrap_or_else(error));
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

/// The answer as it is. Names in it come from a server, so that nothing here
/// reads it.
async fn read(channel: &Channel) -> anyhow::Result<String> {
    let answer = channel.receive::<Looked>().await;
    match answer.context("keeper ended before it answered")? {
        (Looked::Found, Some(fd)) => {
            let text = tokio::task::spawn_blocking(move || from_memfd(fd)).await??;
            Ok(String::from_utf8(text)?)
        }
        (Looked::Found, None) => bail!("keeper sent no answer"),
        (Looked::Refused(why), _) => bail!(why),
    }
}
