//! What a PostgreSQL statement does, in the verbs and resources of
//! [`lockgate_command`].
//!
//! It goes in two steps, since most of the work depends on the text alone:
//!
//! 1. [`Analyser`] reads a text with PostgreSQL's own grammar and walks the
//!    whole tree. The [`Analysis`] says what the text needs, in names as they
//!    are written. Texts that differ in values only share it.
//! 2. [`resolve`] says what these names mean in one session, under one
//!    [`Catalogue`] of the database.
//!
//! Of tagged columns it says by name what may be touched, and exactly what a
//! result shows and a predicate compares where that is certain; the module
//! `lineage` says of what it is.
//!
//! What cannot be read is refused, what is not known is named as such: a
//! function that is not PostgreSQL's own is a `call`, a type that is not is
//! `opaque`. Nothing is guessed to be harmless.
#![forbid(unsafe_code)]

mod analyser;
mod analysis;
mod builtin;
mod catalogue;
mod extensions;
mod lineage;
mod names;
mod prescan;
mod reading;
mod resolve;
mod settings;
mod shape;
mod tags;
mod template;
mod walk;

pub use analyser::{Analyser, AnalyserSettings, STACK};
pub use analysis::Analysis;
pub use builtin::{FunctionClass, function_class, is_operator, is_type};
pub use catalogue::{
    Cascade, Catalogue, CatalogueError, Column, Dependency, Reference, Relation, RelationKind, Rows,
};
pub use extensions::extension_lists;
pub use reading::Reading;
pub use resolve::{
    CopyOut, Effects, Resolved, SearchPath, SessionNames, refused, resolve, resolve_executing,
};
pub use tags::{TagMask, Tags};
