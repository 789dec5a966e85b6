//! Functions, operators, types and collations: only what is built in is known,
//! and what the lists of extensions say.

use lockgate_command::{Resource, Verb};

use super::{Resolver, UNKNOWN};
use crate::builtin::{FunctionClass, function_class, is_operator, is_type};
use crate::catalogue::{UnknownType, is_system};
use crate::names::Name;

impl Resolver<'_> {
    pub(super) fn function(&mut self, name: &Name) {
        let mut others = self.other_functions(name);
        let class = match name.schema.as_deref() {
            None | Some("pg_catalog" | "information_schema") => function_class(&name.name),
            Some(_) => return,
        };
        // `date('…')` is a conversion.
        for schema in self.catalogue.types(&name.name) {
            others = true;
            self.schema(Verb::Opaque, schema);
        }
        others |= self.catalogue.harmless_types(&name.name).next().is_some();
        match class {
            Some(class) => self.class(class),
            None if others || is_type(&name.name) => {}
            None => self.call(UNKNOWN, &name.name),
        }
    }

    /// Functions of that name that are not PostgreSQL's own; whether there are
    /// any.
    pub(super) fn other_functions(&mut self, name: &Name) -> bool {
        let catalogue = self.catalogue;
        let schema = name.schema.as_deref();
        let mut any = false;
        for (of, class) in catalogue.functions(&name.name) {
            if schema.is_none_or(|schema| schema == of) {
                any = true;
                self.other_function(of, &name.name, class);
            }
        }
        match schema {
            Some(schema) if !any && schema != "pg_catalog" && schema != "information_schema" => {
                self.call(schema, &name.name);
                true
            }
            _ => any,
        }
    }

    fn other_function(&mut self, schema: &str, name: &str, class: Option<FunctionClass>) {
        match class {
            Some(class) => self.class(class),
            None => self.call(schema, name),
        }
    }

    fn class(&mut self, class: FunctionClass) {
        match (class, class.verb()) {
            (_, None) => {}
            (
                FunctionClass::System | FunctionClass::Settings | FunctionClass::Program,
                Some(verb),
            ) => {
                self.add(verb, Resource::target());
            }
            (_, Some(verb)) => self.database(verb),
        }
    }

    pub(super) fn attribute(&mut self, name: &str) {
        let catalogue = self.catalogue;
        for (schema, class) in catalogue.functions(name) {
            self.other_function(schema, name, class);
        }
        if let Some(class) = function_class(name) {
            self.class(class);
        }
    }

    pub(super) fn operator(&mut self, name: &Name) {
        let catalogue = self.catalogue;
        let schema = name.schema.as_deref();
        let built_in = schema.is_none_or(|schema| schema == "pg_catalog");
        let mut any = built_in && is_operator(&name.name);
        for (of, pure) in catalogue.operators(&name.name) {
            if schema.is_none_or(|schema| schema == of) {
                any = true;
                if !pure {
                    self.call(of, &name.name);
                }
            }
        }
        if !any {
            self.call(schema.unwrap_or(UNKNOWN), &name.name);
        }
    }

    pub(super) fn type_(&mut self, name: &Name) {
        let catalogue = self.catalogue;
        match name.schema.as_deref() {
            Some("pg_catalog" | "information_schema") => {
                for schema in catalogue
                    .types(&name.name)
                    .filter(|schema| is_system(schema))
                {
                    self.schema(Verb::Opaque, schema);
                }
            }
            Some(schema) => {
                let harmless = catalogue.harmless_types(&name.name).any(|of| of == schema)
                    && !catalogue.types(&name.name).any(|of| of == schema);
                if !harmless {
                    self.schema(Verb::Opaque, schema);
                }
            }
            None => {
                let mut any =
                    is_type(&name.name) || catalogue.harmless_types(&name.name).next().is_some();
                for schema in catalogue.types(&name.name) {
                    any = true;
                    self.schema(Verb::Opaque, schema);
                }
                if !any {
                    self.schema(Verb::Opaque, UNKNOWN);
                }
            }
        }
    }

    pub(super) fn type_by_oid(&mut self, oid: u32) {
        match self.catalogue.type_by_oid(oid) {
            Ok(None) => {}
            Ok(Some(schema)) => self.schema(Verb::Opaque, schema),
            Err(UnknownType) => self.schema(Verb::Opaque, UNKNOWN),
        }
    }

    pub(super) fn collation(&mut self, name: &Name) {
        let catalogue = self.catalogue;
        match name.schema.as_deref() {
            Some("pg_catalog") => {}
            Some(schema) => self.schema(Verb::Opaque, schema),
            None => {
                for schema in catalogue.collations(&name.name) {
                    self.schema(Verb::Opaque, schema);
                }
            }
        }
    }
}
