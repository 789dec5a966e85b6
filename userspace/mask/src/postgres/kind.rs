use lockgate_config::Mask;

use super::Number;

/// What masks tell apart of PostgreSQL's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its binary format is its text. Filled with blanks, or not.
    Text {
        padded: bool,
    },
    Json,
    Jsonb,
    Uuid,
    Date,
    Timestamp,
    Number(Number),
    /// Only NULL is certain to be one of its values.
    Other,
}

impl Kind {
    pub(super) fn of(type_name: &str) -> Self {
        match type_name {
            "text" | "varchar" | "name" | "citext" => Self::Text { padded: false },
            "bpchar" => Self::Text { padded: true },
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "timestamp" | "timestamptz" => Self::Timestamp,
            "int2" => Self::Number(Number::Int2),
            "int4" => Self::Number(Number::Int4),
            "int8" => Self::Number(Number::Int8),
            "float4" => Self::Number(Number::Float4),
            "float8" => Self::Number(Number::Float8),
            "numeric" => Self::Number(Number::Numeric),
            _ => Self::Other,
        }
    }
}

/// Why a mask cannot be used for a column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

impl Misfit {
    pub(super) fn new(mask: Mask, type_name: &str) -> Self {
        let fits = match mask {
            // Fits all.
            Mask::Null => "every type",
            Mask::Redact => "text, varchar, char, citext, json and jsonb",
            Mask::KeepFirst(_) | Mask::KeepLast(_) => "text, varchar, char and citext",
            Mask::Hash => "text, varchar, char, citext and uuid",
            Mask::Truncate(_) => "date (to year or month), timestamp and timestamptz",
            Mask::Bucket(_) => {
                "smallint, integer, bigint, numeric, real and double precision, with a width over 1"
            }
        };
        Self(format!(
            "the mask {mask} does not fit the type {type_name}; it fits {fits}; `null` fits every type"
        ))
    }

    pub(super) fn no_key() -> Self {
        Self("the mask hash has no key; set mask.key in the configuration".into())
    }
}
