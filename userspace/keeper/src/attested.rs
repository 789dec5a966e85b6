use std::collections::HashMap;
use std::net::SocketAddr;

use lockgate_command::{ConnectionId, WorkloadName};
use lockgate_config::{Bundle, Host, Target};

/// The connections that gate has attested. Whatever a proxy asks for is given
/// for one of them or not at all: a proxy that was taken over gets no more than
/// its clients could.
#[derive(Debug, Default)]
pub(crate) struct Attested {
    connections: HashMap<ConnectionId, Connection>,
}

/// Who called, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) workload: WorkloadName,
    pub(crate) original: SocketAddr,
}

/// Why a proxy does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAttested {
    /// gate never said so, or the connection has ended.
    #[error("connection {0} is not attested")]
    Unknown(ConnectionId),
    /// No such target.
    #[error("there is no target `{0}`")]
    NoTarget(String),
    /// The connection goes elsewhere.
    #[error("connection {connection} goes to {original}, which is not of target `{target}`")]
    Elsewhere {
        /// Which connection.
        connection: ConnectionId,
        /// Where to.
        original: SocketAddr,
        /// What was asked for.
        target: String,
    },
}

impl Attested {
    /// gate says so.
    pub(crate) fn attest(&mut self, connection: ConnectionId, known: Connection) {
        self.connections.insert(connection, known);
    }

    /// gate says that it has ended.
    pub(crate) fn release(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// Forgets all: gate is another one.
    pub(crate) fn clear(&mut self) {
        self.connections.clear();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// The connection, and the target by `name`, if the connection goes there.
    pub(crate) fn at_target<'b>(
        &self,
        connection: ConnectionId,
        name: &str,
        bundle: &'b Bundle,
    ) -> Result<(&Connection, &'b Target, Option<&'b str>), NotAttested> {
        let known = self
            .connections
            .get(&connection)
            .ok_or(NotAttested::Unknown(connection))?;
        let target = bundle
            .config
            .targets
            .iter()
            .find(|target| target.name == name)
            .ok_or_else(|| NotAttested::NoTarget(name.to_owned()))?;
        let mut matched = None;
        let mut contains = false;
        for place in target
            .places
            .iter()
            .filter(|place| place.port == known.original.port())
        {
            match &place.host {
                Host::Name(dns) => {
                    let ip = known.original.ip().to_canonical();
                    let addresses = bundle.names.get(dns).into_iter().flatten();
                    if addresses
                        .into_iter()
                        .any(|found| found.to_canonical() == ip)
                    {
                        (contains, matched) = (true, Some(dns.as_str()));
                    }
                }
                host => contains |= host.contains(known.original.ip()),
            }
        }
        match contains {
            true => Ok((known, target, matched)),
            false => Err(NotAttested::Elsewhere {
                connection,
                original: known.original,
                target: name.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn bundle() -> Bundle {
        let text = "
            [[target]]
            name = 'orders-db'
            protocol = 'postgres'
            match = ['db.internal:5432', '10.0.3.0/24:5432']
            [[target.credentials]]
            workload = 'report'
            user = 'report_ro'
            password = { file = '/x' }
            [[target]]
            name = 'other'
            protocol = 'postgres'
            match = ['10.9.9.9:5432']
        ";
        let names = [("db.internal".to_owned(), vec!["10.7.7.7".parse().unwrap()])];
        Bundle {
            config: toml::from_str(text).unwrap(),
            names: names.into(),
            ..Bundle::default()
        }
    }

    #[test]
    fn only_what_gate_attested_is_served_and_only_where_it_goes() {
        let bundle = bundle();
        let mut attested = Attested::default();
        let (one, two) = (ConnectionId(1), ConnectionId(2));
        assert_eq!(
            attested.at_target(one, "orders-db", &bundle).unwrap_err(),
            NotAttested::Unknown(one)
        );
        let workload = WorkloadName::from("report");
        for (connection, original) in [(one, "10.0.3.5:5432"), (two, "10.7.7.7:5432")] {
            let original = original.parse().unwrap();
            attested.attest(
                connection,
                Connection {
                    workload: workload.clone(),
                    original,
                },
            );
        }
        assert!(attested.at_target(one, "orders-db", &bundle).is_ok());
        let (_, _, name) = attested.at_target(two, "orders-db", &bundle).unwrap();
        assert_eq!(name, Some("db.internal"));
        assert!(matches!(
            attested.at_target(one, "other", &bundle),
            Err(NotAttested::Elsewhere { .. })
        ));
        assert!(matches!(
            attested.at_target(one, "nowhere", &bundle),
            Err(NotAttested::NoTarget(_))
        ));
        attested.release(one);
        assert!(attested.at_target(one, "orders-db", &bundle).is_err());
    }

    #[test]
    fn another_port_is_elsewhere() {
        let mut attested = Attested::default();
        let original = "10.0.3.5:5433".parse().unwrap();
        attested.attest(
            ConnectionId(1),
            Connection {
                workload: "report".into(),
                original,
            },
        );
        assert!(
            attested
                .at_target(ConnectionId(1), "orders-db", &bundle())
                .is_err()
        );
    }
}
