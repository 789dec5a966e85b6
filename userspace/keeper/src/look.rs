use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use lockgate_config::{Bundle, Host, Protocol, Target};
use lockgate_ipc::{Channel, Look, Looked, Wanted, to_memfd};
use lockgate_sql::Catalogue;
use serde_json::{Value, json};

use crate::answers::Keeper;
use crate::attested::place_of;
use crate::catalogue::{Access, Via};

/// How long all of a look may take: less than who asks is willing to wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// What unqualified names mean after login.
const NAMES: &str =
    "select pg_catalog.array_to_json(pg_catalog.current_schemas(true))::pg_catalog.text";

/// What the role may do: rows of a kind, a name, and what on it. 16384 is
/// FirstNormalObjectId.
const RIGHTS: &str = "
select 'attribute', attribute, '' from pg_catalog.pg_roles r,
    lateral (values ('SUPERUSER', rolsuper), ('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb),
                    ('REPLICATION', rolreplication), ('BYPASSRLS', rolbypassrls)) a(attribute, has)
    where r.rolname = current_user and has
union all
select 'member', rolname, '' from pg_catalog.pg_roles
    where rolname <> current_user and pg_catalog.pg_has_role(current_user, oid, 'MEMBER')
union all
select 'create', 'database', pg_catalog.current_database()
    where pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
union all
select case when exists (select from pg_catalog.aclexplode(coalesce(nspacl, pg_catalog.acldefault('n', nspowner))) a
                         where a.grantee = 0 and a.privilege_type = 'CREATE')
            then 'create by all' else 'create' end, 'schema', nspname
    from pg_catalog.pg_namespace
    where pg_catalog.has_schema_privilege(oid, 'CREATE') and nspname !~ '^pg_(toast_)?temp_'
union all
select 'owner', nspname, relname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace
    where c.oid >= 16384 and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      and pg_catalog.pg_has_role(current_user, relowner, 'MEMBER')
union all
select 'table ' || pg_catalog.lower(privilege), nspname, relname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace,
    unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) privilege
    where c.oid >= 16384 and relkind in ('r', 'p', 'v', 'm', 'f')
      and nspname not in ('pg_catalog', 'information_schema') and nspname !~ '^pg_(toast|temp)'
      and pg_catalog.has_table_privilege(c.oid, privilege)
order by 1, 2, 3";

/// Answers what an operator asks, over a channel that is for this question.
pub(crate) async fn answer(keeper: Arc<Keeper>, fd: OwnedFd) {
    let Ok(channel) = Channel::new(fd) else {
        return;
    };
    let work = async {
        let (look, _) = channel.receive::<Look>().await.map_err(text)?;
        let found = keeper.look(&look).await?;
        to_memfd("look", found.to_string().as_bytes()).map_err(text)
    };
    let result = tokio::time::timeout(PATIENCE, Box::pin(work)).await;
    let late = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
    let (answer, fd) = match result.unwrap_or_else(|_| late()) {
        Ok(fd) => (Looked::Found, Some(fd)),
        Err(why) => (Looked::Refused(why), None),
    };
    // Who asked may have gone.
    let _ = channel.send(&answer, fd).await;
}

impl Keeper {
    async fn look(&self, look: &Look) -> Result<Value, String> {
        let access = self.access_of(look)?;
        let mut found = json!({
            "server": access.original,
            "user": access.user,
            "database": access.database,
        });
        match look.what {
            Wanted::Catalogue => {
                let names = self.catalogues.ask(&access, NAMES).await.map_err(text)?;
                let path = names.into_iter().flatten().flatten().next();
                let path = path.ok_or("the server does not say what its search path is")?;
                found["search_path"] = serde_json::from_str(&path).map_err(text)?;
                let read = self.catalogues.get(access, Duration::ZERO).await;
                let (_, bytes) = read.map_err(text)?;
                let catalogue: Catalogue = postcard::from_bytes(&bytes).map_err(text)?;
                found["catalogue"] = serde_json::to_value(&catalogue).map_err(text)?;
            }
            Wanted::Rights => {
                let rows = self.catalogues.ask(&access, RIGHTS).await.map_err(text)?;
                found["rights"] = serde_json::to_value(rows).map_err(text)?;
            }
        }
        Ok(found)
    }

    fn access_of(&self, look: &Look) -> Result<Access, String> {
        let state = self.shared.state();
        let bundle = state.bundle.clone();
        let target = bundle
            .config
            .targets
            .iter()
            .find(|target| target.name == look.target.as_str())
            .ok_or_else(|| format!("the agent has no target `{}`", look.target))?;
        if target.protocol != Protocol::Postgres {
            return Err(format!("target `{}` has no catalogue", look.target));
        }
        let (original, name) = server_of(target, look.server, &bundle)?;
        let workload = look.workload.as_str();
        let (user, password) = state.credentials.find(workload, target).map_err(text)?;
        Ok(Access {
            via: Via::Host,
            target: target.name.clone(),
            database: look.database.clone(),
            user,
            password,
            original,
            matched_name: name.map(str::to_owned),
            tls: target.tls.clone(),
            bundle: bundle.clone(),
        })
    }
}

/// The server that is meant, and the name it goes by. Never one that the target
/// does not have: it is shown the workload's credential.
fn server_of<'b>(
    target: &'b Target,
    wanted: Option<SocketAddr>,
    bundle: &'b Bundle,
) -> Result<(SocketAddr, Option<&'b str>), String> {
    let name = &target.name;
    if let Some(server) = wanted {
        return match place_of(target, server, bundle) {
            Some(name) => Ok((server, name)),
            None => Err(format!("{server} is not of target `{name}`")),
        };
    }
    let known = |host: &'b Host| match host {
        Host::Name(name) => Some((*bundle.names.get(name)?.first()?, Some(name.as_str()))),
        Host::Net(net) if net.prefix_len() == net.max_prefix_len() => Some((net.addr(), None)),
        Host::Net(_) | Host::Any => None,
    };
    let mut places = target.places.iter();
    places
        .find_map(|place| {
            let (address, name) = known(&place.host)?;
            Some((SocketAddr::new(address, place.port), name))
        })
        .ok_or_else(|| {
            format!("target `{name}` is a range; say which server is meant: --server ADDRESS:PORT")
        })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
