use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{TargetName, Verb};

/// The kinds of things a policy can speak about: Target ∋ Database ∋ Schema ∋
/// Table ∋ Column, and Schema ∋ Function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// A `[[target]]`. Path: nothing.
    Target,
    /// Path: database.
    Database,
    /// Path: database, schema.
    Schema,
    /// Any relation. Path: database, schema, table.
    Table,
    /// Path: database, schema, table, column.
    Column,
    /// Path: database, schema, function (all overloads).
    Function,
}

impl ResourceKind {
    /// The Cedar entity type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Target => "Target",
            Self::Database => "Database",
            Self::Schema => "Schema",
            Self::Table => "Table",
            Self::Column => "Column",
            Self::Function => "Function",
        }
    }

    /// The kind of the resource that holds this one.
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::Target => None,
            Self::Database => Some(Self::Target),
            Self::Schema => Some(Self::Database),
            Self::Table | Self::Function => Some(Self::Schema),
            Self::Column => Some(Self::Table),
        }
    }

    /// How many names a path of this kind has.
    pub const fn depth(self) -> usize {
        match self {
            Self::Target => 0,
            Self::Database => 1,
            Self::Schema => 2,
            Self::Table | Self::Function => 3,
            Self::Column => 4,
        }
    }
}

/// One thing at a target, named from the target inwards, names as the server
/// stores them (folded, unquoted).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    kind: ResourceKind,
    path: SmallVec<[String; 4]>,
}

impl Resource {
    /// The target itself.
    pub fn target() -> Self {
        Self {
            kind: ResourceKind::Target,
            path: SmallVec::new(),
        }
    }

    /// A resource of `kind` at `path`.
    ///
    /// # Panics
    /// When the path's length is not [`ResourceKind::depth`].
    pub fn new<S: Into<String>>(kind: ResourceKind, path: impl IntoIterator<Item = S>) -> Self {
        let path: SmallVec<[String; 4]> = path.into_iter().map(Into::into).collect();
        assert_eq!(
            path.len(),
            kind.depth(),
            "a {kind:?} has {} names",
            kind.depth()
        );
        Self { kind, path }
    }

    /// What it is.
    pub fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// Its names from the database inwards.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// What holds it; none for a target.
    pub fn parent(&self) -> Option<Self> {
        let kind = self.kind.parent()?;
        Some(Self {
            kind,
            path: self.path[..kind.depth()].iter().cloned().collect(),
        })
    }

    /// The id of the Cedar entity: the target and the path joined by `/`, with
    /// `/` and `%` inside a name percent-escaped. Policies and audit records
    /// carry it, so its form is frozen.
    pub fn entity_id(&self, target: &TargetName) -> String {
        let mut id = escape(target.as_str());
        for name in &self.path {
            id.push('/');
            id.push_str(&escape(name));
        }
        id
    }
}

fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        for (index, name) in self.path.iter().enumerate() {
            f.write_str(if index == 0 { " " } else { "." })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// One verb on one resource. A command is permitted only when every access is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub resource: Resource,
}

impl Access {
    /// `verb` on `resource`.
    pub fn new(verb: Verb, resource: Resource) -> Self {
        Self { verb, resource }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.verb, self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slash_cannot_forge_a_path() {
        let target = TargetName::from("orders-db");
        let forged = Resource::new(ResourceKind::Schema, ["shop", "public/customers"]);
        let honest = Resource::new(ResourceKind::Table, ["shop", "public", "customers"]);
        assert_eq!(honest.entity_id(&target), "orders-db/shop/public/customers");
        assert_eq!(
            forged.entity_id(&target),
            "orders-db/shop/public%2Fcustomers"
        );
        let percent = Resource::new(ResourceKind::Database, ["a%2Fb"]);
        assert_eq!(percent.entity_id(&target), "orders-db/a%252Fb");
    }

    #[test]
    fn parents_lead_to_the_target() {
        let column = Resource::new(ResourceKind::Column, ["shop", "public", "customers", "ssn"]);
        let kinds: Vec<_> = std::iter::successors(Some(column), Resource::parent)
            .map(|resource| resource.kind())
            .collect();
        use ResourceKind::*;
        assert_eq!(kinds, [Column, Table, Schema, Database, Target]);
    }
}
