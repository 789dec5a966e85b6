use std::collections::HashMap;
use std::net::SocketAddr;

use lockgate_command::{ConnectionId, WorkloadName};
use lockgate_config::{Bundle, Host, Target};

/// The connections that gate has attested. Whatever a proxy asks for is given
/// for one of them or not at all: a proxy that was taken over gets no more than
/// its clients could.
#[derive(Debug, Default)]
pub(crate) struct Attested {
    connections: HashMap<ConnectionId, Entry>,
    /// Attested by a gate that has ended. Their sessions go on and need the
    /// catalogue to be decided; nothing else is given for them, since nobody
    /// tells when they end.
    orphans: HashMap<ConnectionId, Entry>,
}

/// Who called, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) workload: WorkloadName,
    pub(crate) original: SocketAddr,
}

/// A proxy: counts up with each that keeper was connected to.
pub(crate) type Generation = u64;

#[derive(Clone, Debug)]
struct Entry {
    known: Connection,
    /// The first proxy that asked about it. No other may.
    owner: Option<Generation>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A login or a certificate: of use to whoever has it.
    Secret,
    /// Names and kinds of a database.
    Catalogue,
}

/// A connection, its target, and the DNS name that it matched by.
#[derive(Debug)]
pub(crate) struct Found<'b> {
    pub(crate) known: Connection,
    pub(crate) target: &'b Target,
    pub(crate) name: Option<&'b str>,
}

/// Why a proxy does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAttested {
    /// gate never said so, or the connection has ended.
    #[error("connection {0} is not attested")]
    Unknown(ConnectionId),
    /// Another proxy has it.
    #[error("connection {0} belongs to another proxy process")]
    OfAnother(ConnectionId),
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
        let entry = Entry { known, owner: None };
        self.connections.insert(connection, entry);
    }

    /// gate says that it has ended.
    pub(crate) fn release(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// gate is gone: what it attested stands for nothing but sessions that go on.
    pub(crate) fn orphan(&mut self) {
        self.orphans.extend(self.connections.drain());
    }

    /// A proxy has ended, and its sessions with it.
    pub(crate) fn proxy_ended(&mut self, proxy: Generation) {
        for table in [&mut self.connections, &mut self.orphans] {
            table.retain(|_, entry| entry.owner != Some(proxy));
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether gate has said anything of it.
    pub(crate) fn knows(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection) || self.orphans.contains_key(&connection)
    }

    /// Whether `proxy` may go on with what it began for `connection`.
    pub(crate) fn belongs(
        &self,
        connection: ConnectionId,
        proxy: Generation,
    ) -> Result<(), NotAttested> {
        match self.connections.get(&connection) {
            None => Err(NotAttested::Unknown(connection)),
            Some(entry) if entry.owner == Some(proxy) => Ok(()),
            Some(_) => Err(NotAttested::OfAnother(connection)),
        }
    }

    /// The connection, and the target by `name`, if the connection goes there
    /// and no other proxy than `proxy` has it.
    pub(crate) fn at_target<'b>(
        &mut self,
        connection: ConnectionId,
        proxy: Generation,
        name: &str,
        bundle: &'b Bundle,
        purpose: Purpose,
    ) -> Result<Found<'b>, NotAttested> {
        let entry = match (self.connections.get_mut(&connection), purpose) {
            (Some(entry), _) => entry,
            (None, Purpose::Catalogue) => self
                .orphans
                .get_mut(&connection)
                .ok_or(NotAttested::Unknown(connection))?,
            (None, Purpose::Secret) => return Err(NotAttested::Unknown(connection)),
        };
        if *entry.owner.get_or_insert(proxy) != proxy {
            return Err(NotAttested::OfAnother(connection));
        }
        let known = entry.known.clone();
        let target = bundle
            .config
            .targets
            .iter()
            .find(|target| target.name == name)
            .ok_or_else(|| NotAttested::NoTarget(name.to_owned()))?;
        match place_of(target, known.original, bundle) {
            Some(name) => Ok(Found {
                known,
                target,
                name,
            }),
            None => Err(NotAttested::Elsewhere {
                connection,
                original: known.original,
                target: name.to_owned(),
            }),
        }
    }
}

/// Whether `original` is a place of `target`, and by which DNS name, if by one.
pub(crate) fn place_of<'b>(
    target: &'b Target,
    original: SocketAddr,
    bundle: &'b Bundle,
) -> Option<Option<&'b str>> {
    let address = original.ip().to_canonical();
    let mut found = None;
    for place in &target.places {
        if place.port != original.port() {
            continue;
        }
        match &place.host {
            Host::Name(name) => {
                let addresses = bundle.names.get(name).map(Vec::as_slice).unwrap_or(&[]);
                if addresses
                    .iter()
                    .any(|resolved| resolved.to_canonical() == address)
                {
                    return Some(Some(name));
                }
            }
            host if host.contains(address) => found = Some(None),
            Host::Net(_) | Host::Any => {}
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const ONE: ConnectionId = ConnectionId(1);
    const TWO: ConnectionId = ConnectionId(2);

    pub(crate) fn bundle() -> Bundle {
        let text = "
            [[target]]
            name = 'orders-db'
            protocol = 'postgres'
            match = ['db.internal:5432', '10.0.3.0/24:5432']
            tls = { upstream = 'verify-full', ca = '/ca' }
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

    fn attested(connections: &[(ConnectionId, &str)]) -> Attested {
        let mut attested = Attested::default();
        for (connection, original) in connections {
            attested.attest(
                *connection,
                Connection {
                    workload: "report".into(),
                    original: original.parse().unwrap(),
                },
            );
        }
        attested
    }

    /// What proxy 7 is told.
    fn ask(attested: &mut Attested, connection: ConnectionId, target: &str) -> Option<NotAttested> {
        attested
            .at_target(connection, 7, target, &bundle(), Purpose::Secret)
            .err()
    }

    #[test]
    fn only_what_gate_attested_is_served_and_only_where_it_goes() {
        let mut nobody = Attested::default();
        let unknown = Some(NotAttested::Unknown(ONE));
        assert_eq!(ask(&mut nobody, ONE, "orders-db"), unknown);
        let mut attested = attested(&[(ONE, "10.0.3.5:5432"), (TWO, "10.7.7.7:5432")]);
        assert_eq!(ask(&mut attested, ONE, "orders-db"), None);
        let elsewhere = ask(&mut attested, ONE, "other");
        assert!(matches!(elsewhere, Some(NotAttested::Elsewhere { .. })));
        let nowhere = ask(&mut attested, ONE, "nowhere");
        assert!(matches!(nowhere, Some(NotAttested::NoTarget(_))));
        let bundle = bundle();
        let by_name = attested.at_target(TWO, 7, "orders-db", &bundle, Purpose::Secret);
        assert_eq!(by_name.unwrap().name, Some("db.internal"));
        attested.release(ONE);
        assert_eq!(ask(&mut attested, ONE, "orders-db"), unknown);
    }

    #[test]
    fn another_port_or_an_old_address_of_a_name_is_elsewhere() {
        let mut attested = attested(&[(ONE, "10.0.3.5:5433"), (TWO, "10.7.7.8:5432")]);
        for connection in [ONE, TWO] {
            let answer = ask(&mut attested, connection, "orders-db");
            assert!(matches!(answer, Some(NotAttested::Elsewhere { .. })));
        }
    }

    #[test]
    fn a_v4_mapped_address_is_the_same_place() {
        let mut attested = attested(&[(ONE, "[::ffff:10.0.3.5]:5432")]);
        assert_eq!(ask(&mut attested, ONE, "orders-db"), None);
    }

    #[test]
    fn a_connection_of_one_proxy_is_not_served_to_another() {
        let mut attested = attested(&[(ONE, "10.0.3.5:5432")]);
        assert_eq!(ask(&mut attested, ONE, "orders-db"), None);
        let bundle = bundle();
        for purpose in [Purpose::Secret, Purpose::Catalogue] {
            let other = attested.at_target(ONE, 8, "orders-db", &bundle, purpose);
            assert_eq!(other.unwrap_err(), NotAttested::OfAnother(ONE));
        }
        assert_eq!(attested.belongs(ONE, 7), Ok(()));
        assert_eq!(attested.belongs(ONE, 8), Err(NotAttested::OfAnother(ONE)));
        attested.proxy_ended(7);
        assert_eq!(attested.belongs(ONE, 7), Err(NotAttested::Unknown(ONE)));
    }

    #[test]
    fn after_gate_has_gone_a_session_gets_the_catalogue_and_nothing_else() {
        let mut attested = attested(&[(ONE, "10.0.3.5:5432")]);
        attested.orphan();
        let bundle = bundle();
        let unknown = Some(NotAttested::Unknown(ONE));
        assert_eq!(ask(&mut attested, ONE, "orders-db"), unknown);
        let mut catalogue = || {
            attested
                .at_target(ONE, 7, "orders-db", &bundle, Purpose::Catalogue)
                .err()
        };
        assert_eq!(catalogue(), None);
        attested.proxy_ended(7);
        let mut catalogue = || {
            attested
                .at_target(ONE, 7, "orders-db", &bundle, Purpose::Catalogue)
                .err()
        };
        assert_eq!(catalogue(), unknown);
    }
}
