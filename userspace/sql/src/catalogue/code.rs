//! Which code that did not come with the server is known, by what it runs.

use std::collections::HashMap;

use super::{Rows, number, read, texts};
use crate::builtin::{FunctionClass, function_class};
use crate::catalogue::CatalogueError;
use crate::extensions;

/// Functions and operators that did not come with the server.
pub(super) struct Code {
    pub(super) functions: Vec<Function>,
    pub(super) operators: Vec<Operator>,
    function_places: HashMap<u32, usize>,
    operator_places: HashMap<u32, usize>,
}

pub(super) struct Function {
    pub(super) schema: String,
    pub(super) name: String,
    /// What it does; none if that is not known.
    pub(super) class: Option<FunctionClass>,
    /// What an aggregate is made of.
    parts: Vec<Part>,
    uses: &'static [&'static str],
}

pub(super) struct Operator {
    pub(super) schema: String,
    pub(super) name: String,
    /// Whether it does nothing but compute its result.
    pub(super) pure: bool,
    parts: Vec<Part>,
}

/// Code, as the queries write it: `=name` of PostgreSQL's own, the oid of a
/// function, `o` and the oid of an operator.
enum Part {
    BuiltIn(String),
    Function(u32),
    Operator(u32),
    Unknown,
}

fn parts(text: &str) -> Vec<Part> {
    let part = |word: &str| {
        let (function, operator) = (word.parse(), word.strip_prefix('o').map(str::parse));
        match (word.strip_prefix('='), function, operator) {
            (Some(name), _, _) => Part::BuiltIn(name.to_owned()),
            (_, Ok(oid), _) => Part::Function(oid),
            (_, _, Some(Ok(oid))) => Part::Operator(oid),
            _ => Part::Unknown,
        }
    };
    text.split_whitespace().map(part).collect()
}

impl Code {
    pub(super) fn read(functions: &Rows, operators: &Rows) -> Result<Self, CatalogueError> {
        let functions = read("functions", functions, |row| {
            let [oid, schema, name, extension, version, code, kind] = texts(row)?;
            let is_aggregate = kind == "a";
            let listed = extensions::listed(extension, version, code);
            let class = match is_aggregate {
                true => extensions::is_listed(extension, version).then_some(FunctionClass::Pure),
                false => listed.and_then(|listed| listed.class),
            };
            let function = Function {
                schema: schema.to_owned(),
                name: name.to_owned(),
                class,
                parts: parts(if is_aggregate { code } else { "" }),
                uses: listed.map_or(&[][..], |listed| &listed.uses[..]),
            };
            Ok((number(oid)?, function))
        })?;
        let operators = read("operators", operators, |row| {
            let [oid, schema, name, extension, version, code] = texts(row)?;
            let operator = Operator {
                schema: schema.to_owned(),
                name: name.to_owned(),
                pure: extensions::is_listed(extension, version),
                parts: parts(code),
            };
            Ok((number(oid)?, operator))
        })?;
        let places = |oids: &mut dyn Iterator<Item = u32>| -> HashMap<u32, usize> {
            oids.enumerate().map(|(place, oid)| (oid, place)).collect()
        };
        let mut code = Self {
            function_places: places(&mut functions.iter().map(|(oid, _)| *oid)),
            operator_places: places(&mut operators.iter().map(|(oid, _)| *oid)),
            functions: functions.into_iter().map(|(_, one)| one).collect(),
            operators: operators.into_iter().map(|(_, one)| one).collect(),
        };
        while code.withdraw() {}
        Ok(code)
    }

    /// Takes back what rests on code that is not known; whether there was any.
    fn withdraw(&mut self) -> bool {
        let unknown = |name: &str| {
            let mut functions = self.functions.iter();
            functions.any(|one| one.name == name && one.class != PURE)
                || self
                    .operators
                    .iter()
                    .any(|one| one.name == name && !one.pure)
        };
        let functions: Vec<usize> = (0..self.functions.len())
            .filter(|place| {
                let function = &self.functions[*place];
                function.class.is_some()
                    && (!self.all_pure(&function.parts)
                        || function.uses.iter().any(|name| unknown(name)))
            })
            .collect();
        let operators: Vec<usize> = (0..self.operators.len())
            .filter(|place| {
                let operator = &self.operators[*place];
                operator.pure && !self.all_pure(&operator.parts)
            })
            .collect();
        for place in &functions {
            self.functions[*place].class = None;
        }
        for place in &operators {
            self.operators[*place].pure = false;
        }
        !functions.is_empty() || !operators.is_empty()
    }

    fn all_pure(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| match part {
            Part::BuiltIn(name) => function_class(name) == PURE,
            Part::Function(oid) => {
                let place = self.function_places.get(oid);
                place.is_some_and(|place| self.functions[*place].class == PURE)
            }
            Part::Operator(oid) => {
                let place = self.operator_places.get(oid);
                place.is_some_and(|place| self.operators[*place].pure)
            }
            Part::Unknown => false,
        })
    }

    /// Whether code, as the queries write it, does nothing but compute.
    pub(super) fn is_pure(&self, code: &str) -> bool {
        self.all_pure(&parts(code))
    }
}

const PURE: Option<FunctionClass> = Some(FunctionClass::Pure);
