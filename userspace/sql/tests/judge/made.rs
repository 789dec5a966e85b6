//! Statements made of choices: bytes, so that a failing one can be shortened.

use std::fmt::Write;

const TABLES: &[(&str, &[&str])] = &[
    ("customers", &["id", "name", "ssn"]),
    ("staff", &["id", "ssn", "boss"]),
    ("orders", &["id", "customer_id", "note"]),
    ("people", &["id", "ssn"]),
    ("managers", &["id", "ssn", "extra"]),
    ("accounts", &["id", "owner", "iban"]),
    ("accounts_2", &["id", "owner", "iban"]),
    ("computed", &["id", "twice", "ssn"]),
    ("order_view", &["id", "note"]),
    ("customer_view", &["id", "x"]),
    ("over_view", &["y", "id"]),
];

/// How deep queries stand within each other.
const DEEPEST: usize = 3;

pub fn statement(choices: &[u8]) -> String {
    let mut made = Made {
        choices: choices.iter(),
        names: 0,
        depth: 0,
    };
    match made.below(12) {
        0 => format!("copy ({}) to stdout", made.query(&[], &[], None).0),
        1 => made.writing(),
        _ => made.query(&[], &[], None).0,
    }
}

struct Made<'a> {
    choices: std::slice::Iter<'a, u8>,
    names: usize,
    depth: usize,
}

/// Something with columns, as it is called.
#[derive(Clone, Debug)]
struct Called {
    name: String,
    columns: Vec<String>,
}

type Query = (String, Vec<String>);

impl Made<'_> {
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or(0)) % bound
    }

    fn one_of(&mut self, many: usize) -> bool {
        self.below(many) == many - 1
    }

    fn name(&mut self, first: char) -> String {
        // Few names, so that they hide each other.
        self.names += 1;
        match self.below(3) {
            0 => ["id", "ssn", "name", "customers"][self.below(4)].to_owned(),
            _ => format!("{first}{}", self.names % 4),
        }
    }

    fn query(&mut self, outer: &[Called], ctes: &[Called], width: Option<usize>) -> Query {
        self.depth += 1;
        let query = match self.below(8) {
            0 if self.depth < DEEPEST => self.with(outer, ctes, width),
            1 if self.depth < DEEPEST => self.union(outer, ctes, width),
            _ => self.select(outer, ctes, width),
        };
        self.depth -= 1;
        query
    }

    fn with(&mut self, outer: &[Called], ctes: &[Called], width: Option<usize>) -> Query {
        let mut all = ctes.to_vec();
        let mut parts = Vec::new();
        let recursive = self.one_of(4);
        for _ in 0..1 + self.below(2) {
            let name = match self.below(4) {
                0 => "customers".to_owned(),
                1 => "staff".to_owned(),
                _ => self.name('w'),
            };
            let (query, mut columns) = match recursive {
                true => self.recursive(&name, outer, &all),
                false => self.query(outer, &all, None),
            };
            let list = self.list(&mut columns);
            parts.push(format!("{name}{list} as ({query})"));
            all.push(Called { name, columns });
        }
        let (query, columns) = self.query(outer, &all, width);
        let word = if recursive { "recursive " } else { "" };
        (format!("with {word}{} {query}", parts.join(", ")), columns)
    }

    fn recursive(&mut self, name: &str, outer: &[Called], ctes: &[Called]) -> Query {
        let (first, columns) = self.select(outer, ctes, Some(2));
        let mut all = ctes.to_vec();
        all.push(Called {
            name: name.to_owned(),
            columns: columns.clone(),
        });
        let (second, _) = self.select(outer, &all, Some(2));
        (format!("{first} union {second}"), columns)
    }

    fn union(&mut self, outer: &[Called], ctes: &[Called], width: Option<usize>) -> Query {
        let width = width.unwrap_or_else(|| 1 + self.below(3));
        let (left, columns) = self.query(outer, ctes, Some(width));
        let (right, _) = self.query(outer, ctes, Some(width));
        let operators = ["union", "union all", "intersect", "except", "union all"];
        let operator = operators[self.below(5)];
        let mut query = format!("({left}) {operator} ({right})");
        if self.one_of(4) {
            let by = match columns[0].as_str() {
                "" => "1",
                name => name,
            };
            write!(query, " order by {by}").expect("a string grows");
        }
        (query, columns)
    }

    fn select(&mut self, outer: &[Called], ctes: &[Called], width: Option<usize>) -> Query {
        let mut here: Vec<Called> = Vec::new();
        let mut from = Vec::new();
        for _ in 0..1 + self.below(4) / 2 {
            let (text, called) = self.source(&here, outer, ctes);
            from.push(text);
            here.extend(called);
        }
        let scope: Vec<Called> = here.iter().chain(outer).cloned().collect();
        let (outputs, columns) = self.outputs(&here, &scope, ctes, width);
        let distinct = match self.below(8) {
            0 => "distinct ".to_owned(),
            1 => format!("distinct on ({}) ", self.column(&here)),
            _ => String::new(),
        };
        let mut query = format!("select {distinct}{outputs} from {}", from.join(", "));
        if self.one_of(2) {
            let condition = self.condition(&scope, ctes);
            write!(query, " where {condition}").expect("a string grows");
        }
        if self.one_of(9) {
            let (by, having) = (self.column(&here), self.condition(&here, ctes));
            let query = format!(
                "select {by} from {} group by {by} having {having}",
                from.join(", ")
            );
            let mut columns = vec![last(&by)];
            let fill: String = (1..width.unwrap_or(1)).map(|_| ", 'x'").collect();
            columns.resize(width.unwrap_or(1), String::new());
            return (query.replacen(" from", &format!("{fill} from"), 1), columns);
        }
        if distinct.is_empty() && self.one_of(3) {
            let by = match self.below(4) {
                0 => (1 + self.below(columns.len())).to_string(),
                1 => match columns[self.below(columns.len())].as_str() {
                    "" => "1".to_owned(),
                    name => name.to_owned(),
                },
                2 => format!("lower({})", self.column(&here)),
                _ => self.column(&here),
            };
            write!(query, " order by {by}").expect("a string grows");
        }
        if self.one_of(6) {
            query += " limit 2";
        }
        if self.depth == 1 && self.one_of(10) {
            query += " for update";
        }
        (query, columns)
    }

    /// A part of a FROM clause, and what it brings into scope.
    fn source(
        &mut self,
        before: &[Called],
        outer: &[Called],
        ctes: &[Called],
    ) -> (String, Vec<Called>) {
        self.depth += 1;
        let source = match self.below(10) {
            0 | 1 if self.depth <= DEEPEST => {
                let lateral = self.one_of(3);
                let around: Vec<Called> = match lateral {
                    true => before.iter().chain(outer).cloned().collect(),
                    false => outer.to_vec(),
                };
                let (query, mut columns) = self.query(&around, ctes, None);
                let (name, list) = (self.name('q'), self.list(&mut columns));
                let word = if lateral { "lateral " } else { "" };
                let text = format!("{word}({query}) as {name}{list}");
                (text, vec![Called { name, columns }])
            }
            2 | 3 if self.depth <= DEEPEST => self.join(before, outer, ctes),
            4 => {
                let name = self.name('f');
                let argument = match self.one_of(3) {
                    true if !before.is_empty() => self.column(before),
                    _ => "'1'".to_owned(),
                };
                let text = format!("unnest(array[{argument}]) as {name}");
                let columns = vec![name.clone()];
                (text, vec![Called { name, columns }])
            }
            _ => self.table(ctes),
        };
        self.depth -= 1;
        source
    }

    fn table(&mut self, ctes: &[Called]) -> (String, Vec<Called>) {
        let (table, mut columns) = match ctes {
            [_, ..] if self.one_of(2) => {
                let cte = &ctes[self.below(ctes.len())];
                (cte.name.clone(), cte.columns.clone())
            }
            _ => {
                let (table, columns) = TABLES[self.below(TABLES.len())];
                let schema = if self.one_of(6) { "public." } else { "" };
                let columns = columns.iter().map(|column| (*column).to_owned());
                (format!("{schema}{table}"), columns.collect())
            }
        };
        let (name, text) = match self.below(3) {
            0 => {
                let (name, list) = (self.name('t'), self.list(&mut columns));
                (name.clone(), format!("{table} as {name}{list}"))
            }
            _ => (last(&table), table),
        };
        (text, vec![Called { name, columns }])
    }

    fn join(
        &mut self,
        before: &[Called],
        outer: &[Called],
        ctes: &[Called],
    ) -> (String, Vec<Called>) {
        let (left, mut called) = self.source(before, outer, ctes);
        let beside: Vec<Called> = before.iter().chain(&called).cloned().collect();
        let (right, more) = self.source(&beside, outer, ctes);
        called.extend(more);
        let kind = ["join", "left join", "full join", "cross join"][self.below(4)];
        let text = match (kind, self.below(6)) {
            ("cross join", _) => format!("{left} cross join {right}"),
            (_, 0) => format!("{left} {kind} {right} using (id)"),
            (_, 1) => format!("{left} {kind} {right} using (id, ssn)"),
            (_, 2) => format!("{left} natural {kind} {right}"),
            ("full join", _) => {
                let (one, other) = (self.column(&called[..1]), self.column(&called));
                format!("{left} {kind} {right} on {one} = {other}")
            }
            _ => {
                let condition = self.condition(&called, ctes);
                format!("{left} {kind} {right} on {condition}")
            }
        };
        if self.one_of(6) {
            let name = self.name('j');
            let columns = called.into_iter().flat_map(|called| called.columns);
            let columns = columns.collect();
            return (
                format!("({text}) as {name}"),
                vec![Called { name, columns }],
            );
        }
        (text, called)
    }

    fn outputs(
        &mut self,
        here: &[Called],
        scope: &[Called],
        ctes: &[Called],
        width: Option<usize>,
    ) -> Query {
        if width.is_none() && self.one_of(5) {
            let columns = here.iter().flat_map(|called| called.columns.clone());
            return ("*".to_owned(), columns.collect());
        }
        let mut texts = Vec::new();
        let mut columns = Vec::new();
        let count = width.unwrap_or_else(|| 1 + self.below(3));
        for _ in 0..count {
            if width.is_none() && self.one_of(8) {
                let called = &here[self.below(here.len())];
                texts.push(format!("{}.*", called.name));
                columns.extend(called.columns.clone());
                continue;
            }
            let text = match self.below(4) {
                0 => self.expression(scope, ctes),
                1 => self.column(scope),
                _ => self.column(here),
            };
            let plain = text
                .chars()
                .all(|c| c.is_alphanumeric() || "._".contains(c));
            match self.below(4) {
                0 => {
                    let name = self.name('o');
                    texts.push(format!("{text} as {name}"));
                    columns.push(name);
                }
                _ => {
                    columns.push(if plain { last(&text) } else { String::new() });
                    texts.push(text);
                }
            }
        }
        (texts.join(", "), columns)
    }

    /// A column of something in scope, with or without its table.
    fn column(&mut self, scope: &[Called]) -> String {
        let called = &scope[self.below(scope.len())];
        let column = called.columns[self.below(called.columns.len())].as_str();
        match (column, self.below(3)) {
            ("", _) => "'y'".to_owned(),
            (column, 0) => column.to_owned(),
            (column, _) => format!("{}.{column}", called.name),
        }
    }

    fn expression(&mut self, scope: &[Called], ctes: &[Called]) -> String {
        let column = self.column(scope);
        match self.below(14) {
            0 => format!("upper({column})"),
            1 => format!("{column} || '!'"),
            2 => format!("coalesce({column}, 'z')"),
            3 => format!(
                "case when {} then 'a' else 'b' end",
                self.condition(scope, ctes)
            ),
            4 => format!("({column})::varchar"),
            5 => format!("row_to_json({})::text", scope[self.below(scope.len())].name),
            6 => format!("{}::text", scope[self.below(scope.len())].name),
            7 => format!("max({column}) over ()"),
            8 if self.depth < DEEPEST => {
                let (query, _) = self.query(scope, ctes, Some(1));
                format!("(select max(v) from ({query}) as m(v))")
            }
            9 if self.depth < DEEPEST => {
                let (query, _) = self.query(scope, ctes, None);
                format!("exists ({query})::text")
            }
            10 if self.depth < DEEPEST => {
                let (query, _) = self.query(scope, ctes, Some(1));
                format!("array({query})::text")
            }
            11 => format!("length({column})::text"),
            12 => format!("({}).id", scope[self.below(scope.len())].name),
            _ => "'k'".to_owned(),
        }
    }

    fn condition(&mut self, scope: &[Called], ctes: &[Called]) -> String {
        let column = self.column(scope);
        match self.below(12) {
            0 => format!("{column} = '1'"),
            1 => format!("{column} is not null"),
            2 => format!("{column} like 's%'"),
            3 => format!("lower({column}) <> 'q'"),
            4 => format!("{column} = {}", self.column(scope)),
            5 if self.depth < DEEPEST => {
                let (query, _) = self.query(scope, ctes, None);
                format!("exists ({query})")
            }
            6 if self.depth < DEEPEST => {
                let (query, _) = self.query(scope, ctes, Some(1));
                format!("{column} in ({query})")
            }
            7 => format!("({column} > 'a' or {})", self.condition(scope, ctes)),
            8 => format!("md5({column}) <> 'x'"),
            9 => format!("{} is not null", scope[self.below(scope.len())].name),
            _ => "true".to_owned(),
        }
    }

    /// `(names)` for the first columns, sometimes.
    fn list(&mut self, columns: &mut [String]) -> String {
        if !self.one_of(4) || columns.is_empty() {
            return String::new();
        }
        let count = 1 + self.below(columns.len());
        let names: Vec<String> = (0..count).map(|_| self.name('c')).collect();
        columns[..count].clone_from_slice(&names);
        format!(" ({})", names.join(", "))
    }

    fn writing(&mut self) -> String {
        let (table, columns) = TABLES[self.below(3)];
        let called = Called {
            name: table.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        let (source, more) = self.source(&[], &[], &[]);
        let mut scope = vec![called.clone()];
        match self.below(3) {
            0 => {
                let (outputs, _) = self.outputs(&scope, &scope, &[], None);
                format!("insert into {table} (id) values ('9') returning {outputs}")
            }
            1 => {
                scope.extend(more);
                let condition = self.condition(&scope, &[]);
                let (outputs, _) = self.outputs(&scope, &scope, &[], None);
                format!(
                    "update {table} set id = '7' from {source} where {condition} returning {outputs}"
                )
            }
            _ => {
                scope.extend(more);
                let condition = self.condition(&scope, &[]);
                let (outputs, _) = self.outputs(&scope, &scope, &[], None);
                format!("delete from {table} using {source} where {condition} returning {outputs}")
            }
        }
    }
}

fn last(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).to_owned()
}
