//! Names as a statement writes them, folded and unquoted by the grammar.

use lockgate_command::Verb;

/// A possibly qualified name. A catalogue (database) name in front of it is
/// dropped by the walk: PostgreSQL accepts only the current database there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl Name {
    /// From the parts as they were written. PostgreSQL cuts each to 63 bytes.
    pub(crate) fn new(schema: Option<&str>, name: &str) -> Self {
        Self {
            schema: schema.map(|schema| cut(schema).to_owned()),
            name: cut(name).to_owned(),
        }
    }
}

/// One thing that a text needs, before names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Need {
    /// A verb on the target as a whole.
    Target(Verb),
    /// A verb on the session's database.
    Database(Verb),
    /// A verb on a database by name.
    OtherDatabase(Verb, String),
    /// A verb on a schema.
    Schema(Verb, String),
    /// A verb on an object that lives in a schema and is no relation; the
    /// schema decides.
    InSchema(Verb, Name),
    /// A verb on an existing relation.
    Relation(Verb, Name),
    /// A relation that the statement makes.
    NewRelation { name: Name, temporary: bool },
    /// A call by name.
    Function(Name),
    /// A call by name, whose meaning as a built-in function is among the other
    /// needs already.
    OtherFunction(Name),
    /// A verb on a function, which is not called.
    FunctionObject(Verb, Name),
    /// A last field that may be a column or a function applied to its row.
    Attribute(String),
    /// An operator by name.
    Operator(Name),
    /// A type that values are converted to.
    Type(Name),
    /// The same by its oid.
    TypeByOid(u32),
    /// A collation.
    Collation(Name),
}

impl Need {
    /// Whether what it means depends on `search_path`, role or catalogue.
    pub(crate) fn depends_on_names(&self) -> bool {
        match self {
            Self::Target(_)
            | Self::Database(_)
            | Self::OtherDatabase(..)
            | Self::Schema(..)
            | Self::TypeByOid(_)
            | Self::Attribute(_) => false,
            Self::InSchema(_, name)
            | Self::Relation(_, name)
            | Self::NewRelation {
                name,
                temporary: false,
            }
            | Self::FunctionObject(_, name)
            | Self::Collation(name) => name.schema.is_none(),
            Self::NewRelation {
                temporary: true, ..
            } => true,
            // Of these, every definition that the catalogue has in any schema
            // counts, so that no path can matter.
            Self::Function(_) | Self::OtherFunction(_) | Self::Operator(_) | Self::Type(_) => false,
        }
    }
}

/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1).
const LONGEST: usize = 63;

/// `name` as PostgreSQL truncates it: to 63 bytes, never inside a character.
pub(crate) fn cut(name: &str) -> &str {
    if name.len() <= LONGEST {
        return name;
    }
    let mut end = LONGEST;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn names_are_cut_between_characters() {
        let long = format!("{}é", "a".repeat(62));
        assert_eq!(cut(&long), "a".repeat(62));
        assert_eq!(cut(&"b".repeat(70)), "b".repeat(63));
        assert_eq!(cut("c"), "c");
    }
}
