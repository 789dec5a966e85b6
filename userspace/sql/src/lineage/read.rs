//! From the tree of a statement to its [`Lineage`]. Nodes are taken apart
//! without `..`; what has no arm here has no lineage.

mod expression;

use std::collections::BTreeSet;
use std::string::String;

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::{
    Body, Called, Cte, How, Join, Key, Lineage, Output, Query, Reference, Root, Select, Source,
    Use, WIDEST, What,
};
use crate::analysis::Facts;
use crate::names::{Name, Need, cut};
use crate::walk;

/// Queries and joins within each other. Real ones are far below; the tracer
/// runs on a thread with a usual stack.
const DEEPEST: usize = 64;

/// The lineage of the only statement of `tree`, of which `facts` are known.
pub(crate) fn read(tree: &ParseResult, facts: &Facts) -> Option<Lineage> {
    let ParseResult { version: _, stmts } = tree;
    let [
        RawStmt {
            stmt,
            stmt_location: _,
            stmt_len: _,
        },
    ] = &stmts[..]
    else {
        return None;
    };
    let mut reader = Reader::default();
    let root = reader.root(stmt.as_ref()?.node.as_ref()?)?;
    reader.covers(facts).then_some(Lineage {
        root,
        memory: reader.memory,
    })
}

#[derive(Default)]
struct Reader {
    depth: usize,
    memory: usize,
    /// Names met in the place of a column.
    columns: BTreeSet<String>,
    /// Relations met.
    relations: BTreeSet<Name>,
}

impl Reader {
    /// Whether nothing is among `facts` that was not met here.
    fn covers(&self, facts: &Facts) -> bool {
        let reads = facts.needs.iter().all(|need| match need {
            Need::Relation(Verb::Select | Verb::Lock, name) => self.relations.contains(name),
            _ => true,
        });
        reads && facts.columns.is_subset(&self.columns)
    }

    fn root(&mut self, statement: &NodeEnum) -> Option<Root> {
        match statement {
            NodeEnum::SelectStmt(select) => Some(Root::Query(self.query(select)?)),
            NodeEnum::CopyStmt(copy) => self.copy(copy),
            NodeEnum::InsertStmt(insert) => {
                let InsertStmt {
                    relation,
                    cols: _,
                    select_stmt: _,
                    on_conflict_clause: _,
                    returning_clause,
                    with_clause: None,
                    r#override: _,
                } = &**insert
                else {
                    return None;
                };
                let rest = InsertStmt {
                    returning_clause: None,
                    ..InsertStmt::clone(insert)
                };
                let rest = NodeEnum::InsertStmt(Box::new(rest));
                self.returning(relation, &[], returning_clause, rest)
            }
            NodeEnum::UpdateStmt(update) => {
                let UpdateStmt {
                    relation,
                    target_list: _,
                    where_clause: _,
                    from_clause,
                    returning_clause,
                    with_clause: None,
                } = &**update
                else {
                    return None;
                };
                let rest = UpdateStmt {
                    returning_clause: None,
                    ..UpdateStmt::clone(update)
                };
                let rest = NodeEnum::UpdateStmt(Box::new(rest));
                self.returning(relation, from_clause, returning_clause, rest)
            }
            NodeEnum::DeleteStmt(delete) => {
                let DeleteStmt {
                    relation,
                    using_clause,
                    where_clause: _,
                    returning_clause,
                    with_clause: None,
                } = &**delete
                else {
                    return None;
                };
                let rest = DeleteStmt {
                    returning_clause: None,
                    ..DeleteStmt::clone(delete)
                };
                let rest = NodeEnum::DeleteStmt(Box::new(rest));
                self.returning(relation, using_clause, returning_clause, rest)
            }
            _ => None,
        }
    }

    fn copy(&mut self, copy: &CopyStmt) -> Option<Root> {
        let CopyStmt {
            relation,
            query,
            attlist,
            is_from: false,
            is_program: false,
            filename,
            options: _,
            where_clause: None,
        } = copy
        else {
            return None;
        };
        if !filename.is_empty() {
            return None;
        }
        match (relation, query.as_deref()) {
            (None, Some(query)) => match &query.node {
                Some(NodeEnum::SelectStmt(select)) => Some(Root::Query(self.query(select)?)),
                _ => None,
            },
            (Some(relation), None) => Some(Root::Table {
                name: self.relation(relation),
                columns: self.names(attlist)?,
            }),
            _ => None,
        }
    }

    fn returning(
        &mut self,
        relation: &Option<RangeVar>,
        from: &[Node],
        clause: &Option<ReturningClause>,
        rest: NodeEnum,
    ) -> Option<Root> {
        let ReturningClause { options, exprs } = clause.as_ref()?;
        if !options.is_empty() {
            return None;
        }
        let mut rest = Box::new(walk::statement(rest).ok()?);
        rest.indifferent.clear();
        self.columns.extend(rest.columns.iter().cloned());
        for need in &rest.needs {
            if let Need::Relation(_, name) = need {
                self.relations.insert(name.clone());
            }
        }
        let mut sources = vec![self.table(relation.as_ref()?, Vec::new())?];
        sources.extend(self.sources(from)?);
        let mut uses = Vec::new();
        let outputs = self.outputs(exprs, &mut uses)?;
        Some(Root::Returning {
            from: sources,
            outputs,
            uses,
            rest,
        })
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.memory += 128;
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let found = read(self);
        self.depth -= 1;
        found
    }

    fn query(&mut self, select: &SelectStmt) -> Option<Query> {
        self.deeper(|reader| reader.query_here(select))
    }

    fn query_here(&mut self, select: &SelectStmt) -> Option<Query> {
        let SelectStmt {
            distinct_clause,
            into_clause: None,
            target_list,
            from_clause,
            where_clause,
            group_clause,
            group_distinct: _,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option: _,
            locking_clause: _,
            with_clause,
            op,
            all,
            larg,
            rarg,
        } = select
        else {
            return None;
        };
        let (recursive, ctes) = self.ctes(with_clause)?;
        let body = match (SetOperation::try_from(*op).ok()?, larg, rarg) {
            (SetOperation::SetopNone, None, None) if !values_lists.is_empty() => {
                if values_lists.iter().flat_map(walk::items).any(is_several) {
                    return None;
                }
                let mut uses = Vec::new();
                self.all(values_lists, How::View, &mut uses)?;
                let width = walk::items(values_lists.first()?).len();
                Body::Values { width, uses }
            }
            (SetOperation::SetopNone, None, None) => {
                let mut uses = Vec::new();
                let outputs = self.outputs(target_list, &mut uses)?;
                let from = self.sources(from_clause)?;
                let distinct = matches!(&distinct_clause[..], [Node { node: None }]);
                let distinct_on = match distinct {
                    true => Vec::new(),
                    false => self.keys(distinct_clause, &mut uses)?,
                };
                let group = self.keys(group_clause, &mut uses)?;
                self.maybe(where_clause, How::Filter, &mut uses)?;
                self.maybe(having_clause, How::Filter, &mut uses)?;
                self.all(window_clause, How::View, &mut uses)?;
                Body::Select(Box::new(Select {
                    from,
                    outputs,
                    distinct,
                    distinct_on,
                    group,
                    uses,
                }))
            }
            (SetOperation::Undefined | SetOperation::SetopNone, ..) => return None,
            (operation, Some(left), Some(right)) => Body::Set {
                left: Box::new(self.query(left)?),
                right: Box::new(self.query(right)?),
                compares: operation != SetOperation::SetopUnion || !*all,
            },
            _ => return None,
        };
        let mut uses = Vec::new();
        let order = self.keys(sort_clause, &mut uses)?;
        // A count shows a number as it is.
        self.maybe(limit_offset, How::View, &mut uses)?;
        self.maybe(limit_count, How::View, &mut uses)?;
        Some(Query {
            recursive,
            ctes,
            body,
            order,
            uses,
        })
    }

    fn ctes(&mut self, with: &Option<WithClause>) -> Option<(bool, Vec<Cte>)> {
        let Some(WithClause {
            ctes,
            recursive,
            location: _,
        }) = with
        else {
            return Some((false, Vec::new()));
        };
        let ctes: Option<Vec<Cte>> = ctes.iter().map(|cte| self.cte(cte)).collect();
        Some((*recursive, ctes?))
    }

    fn cte(&mut self, cte: &Node) -> Option<Cte> {
        let Some(NodeEnum::CommonTableExpr(cte)) = &cte.node else {
            return None;
        };
        let CommonTableExpr {
            ctename,
            aliascolnames,
            ctematerialized: _,
            ctequery,
            search_clause: None,
            cycle_clause: None,
            location: _,
            cterecursive: _,
            cterefcount: _,
            ctecolnames: _,
            ctecoltypes: _,
            ctecoltypmods: _,
            ctecolcollations: _,
        } = &**cte
        else {
            return None;
        };
        let Some(NodeEnum::SelectStmt(query)) = &ctequery.as_deref()?.node else {
            return None;
        };
        Some(Cte {
            name: cut(ctename).to_owned(),
            columns: labels(aliascolnames)?,
            query: self.query(query)?,
        })
    }

    fn sources(&mut self, from: &[Node]) -> Option<Vec<Source>> {
        from.iter().map(|source| self.source(source)).collect()
    }

    fn source(&mut self, source: &Node) -> Option<Source> {
        self.deeper(|reader| reader.source_here(source))
    }

    fn source_here(&mut self, source: &Node) -> Option<Source> {
        match source.node.as_ref()? {
            NodeEnum::RangeVar(relation) => self.table(relation, Vec::new()),
            NodeEnum::RangeSubselect(subselect) => {
                let RangeSubselect {
                    lateral,
                    subquery,
                    alias,
                } = &**subselect;
                let Some(NodeEnum::SelectStmt(query)) = &subquery.as_deref()?.node else {
                    return None;
                };
                Some(Source::Query {
                    query: self.query(query)?,
                    lateral: *lateral,
                    called: called(alias)?,
                })
            }
            NodeEnum::RangeFunction(function) => {
                let RangeFunction {
                    lateral: _,
                    ordinality: _,
                    is_rowsfrom: _,
                    functions,
                    alias,
                    coldeflist,
                } = function;
                let mut uses = Vec::new();
                self.functions(functions, &mut uses)?;
                self.functions(coldeflist, &mut uses)?;
                Some(Source::Function {
                    called: called(alias)?,
                    uses,
                })
            }
            NodeEnum::RangeTableSample(sample) => {
                let RangeTableSample {
                    relation,
                    method: _,
                    args,
                    repeatable,
                    location: _,
                } = &**sample;
                let mut uses = Vec::new();
                self.all(args, How::View, &mut uses)?;
                self.maybe(repeatable, How::View, &mut uses)?;
                match relation.as_deref()?.node.as_ref()? {
                    NodeEnum::RangeVar(relation) => self.table(relation, uses),
                    _ => None,
                }
            }
            NodeEnum::JoinExpr(join) => {
                let JoinExpr {
                    jointype: _,
                    is_natural,
                    larg,
                    rarg,
                    using_clause,
                    join_using_alias: None,
                    quals,
                    alias,
                    rtindex: _,
                } = &**join
                else {
                    return None;
                };
                let mut on = Vec::new();
                self.maybe(quals, How::Filter, &mut on)?;
                Some(Source::Join(Box::new(Join {
                    left: self.source(larg.as_deref()?)?,
                    right: self.source(rarg.as_deref()?)?,
                    natural: *is_natural,
                    using: self.names(using_clause)?,
                    on,
                    called: called(alias)?,
                })))
            }
            _ => None,
        }
    }

    fn table(&mut self, relation: &RangeVar, uses: Vec<Use>) -> Option<Source> {
        Some(Source::Relation {
            name: self.relation(relation),
            called: called(&relation.alias)?,
            uses,
        })
    }

    fn relation(&mut self, relation: &RangeVar) -> Name {
        let RangeVar {
            catalogname: _,
            schemaname,
            relname,
            inh: _,
            relpersistence: _,
            alias: _,
            location: _,
        } = relation;
        let name = walk::name(schemaname, relname);
        self.relations.insert(name.clone());
        name
    }

    /// Calls in FROM, each in a list with the columns it is said to have.
    fn functions(&mut self, nodes: &[Node], uses: &mut Vec<Use>) -> Option<()> {
        for node in nodes {
            match &node.node {
                Some(NodeEnum::List(list)) => self.functions(&list.items, uses)?,
                Some(NodeEnum::ColumnDef(column)) => {
                    self.columns.insert(cut(&column.colname).to_owned());
                }
                _ => self.uses(node, How::View, uses)?,
            }
        }
        Some(())
    }

    fn outputs(&mut self, targets: &[Node], uses: &mut Vec<Use>) -> Option<Vec<Output>> {
        if targets.len() > WIDEST {
            return None;
        }
        let targets = targets.iter();
        targets.map(|target| self.output(target, uses)).collect()
    }

    fn output(&mut self, target: &Node, uses: &mut Vec<Use>) -> Option<Output> {
        let Some(NodeEnum::ResTarget(target)) = &target.node else {
            return None;
        };
        let ResTarget {
            name,
            indirection,
            val,
            location: _,
        } = &**target;
        if !indirection.is_empty() {
            return None;
        }
        let label = Some(cut(name).to_owned()).filter(|name| !name.is_empty());
        let value = val.as_deref()?;
        if let NodeEnum::ColumnRef(column) = value.node.as_ref()? {
            let reference = self.reference(column)?;
            return Some(Output::Column { reference, label });
        }
        if is_several(value) {
            return None;
        }
        self.uses(value, How::View, uses)?;
        let name = label.or_else(|| match &value.node {
            Some(NodeEnum::FuncCall(call)) => {
                let last = walk::string(call.funcname.last()?).ok()?;
                Some(cut(last).to_owned())
            }
            _ => None,
        });
        Some(Output::Computed { name })
    }

    fn reference(&mut self, column: &ColumnRef) -> Option<Reference> {
        let ColumnRef {
            fields,
            location: _,
        } = column;
        let (names, star) = match fields.split_last()? {
            (
                Node {
                    node: Some(NodeEnum::AStar(_)),
                },
                names,
            ) => (names, true),
            _ => (&fields[..], false),
        };
        let names = labels(names)?;
        self.memory += 64 * fields.len();
        if let (Some(last), false) = (names.last(), star) {
            self.columns.insert(last.clone());
        }
        Some(Reference { names, star })
    }

    fn names(&mut self, nodes: &[Node]) -> Option<Vec<String>> {
        let names = labels(nodes)?;
        self.columns.extend(names.iter().cloned());
        Some(names)
    }

    /// What stands in ORDER BY, GROUP BY or DISTINCT ON. Lone integers and
    /// names are keys; all else is compared.
    fn keys(&mut self, nodes: &[Node], uses: &mut Vec<Use>) -> Option<Vec<Key>> {
        let mut keys = Vec::new();
        for node in nodes {
            self.key(node, &mut keys, uses)?;
        }
        Some(keys)
    }

    fn key(&mut self, node: &Node, keys: &mut Vec<Key>, uses: &mut Vec<Use>) -> Option<()> {
        match node.node.as_ref()? {
            NodeEnum::SortBy(sort) => {
                let SortBy {
                    node,
                    sortby_dir: _,
                    sortby_nulls: _,
                    use_op: _,
                    location: _,
                } = &**sort;
                self.key(node.as_deref()?, keys, uses)
            }
            NodeEnum::AConst(AConst {
                isnull: _,
                location: _,
                val: Some(a_const::Val::Ival(Integer { ival })),
            }) => {
                keys.push(Key::Position(usize::try_from(*ival).ok()?));
                Some(())
            }
            NodeEnum::ColumnRef(column) => {
                let Reference { mut names, star } = self.reference(column)?;
                if names.len() == 1 && !star {
                    keys.push(Key::Name(names.remove(0)));
                    return Some(());
                }
                uses.push(Use {
                    how: How::Filter,
                    what: What::Column(Reference { names, star }),
                });
                Some(())
            }
            NodeEnum::GroupingSet(set) => {
                let GroupingSet {
                    kind: _,
                    content,
                    location: _,
                } = set;
                let mut content = content.iter();
                content.try_for_each(|node| self.key(node, keys, uses))
            }
            // `GROUP BY (a, b)`.
            NodeEnum::RowExpr(row) => {
                let RowExpr {
                    xpr: None,
                    args,
                    row_typeid: _,
                    row_format: _,
                    colnames: _,
                    location: _,
                } = &**row
                else {
                    return None;
                };
                args.iter().try_for_each(|arg| self.key(arg, keys, uses))
            }
            _ => self.uses(node, How::Filter, uses),
        }
    }
}

/// Whether an expression stands for as many as a row has columns: `t.*`,
/// `(t).*`.
fn is_several(node: &Node) -> bool {
    let last = match &node.node {
        Some(NodeEnum::ColumnRef(column)) => column.fields.last(),
        Some(NodeEnum::AIndirection(indirection)) => indirection.indirection.last(),
        _ => None,
    };
    last.is_some_and(|last| matches!(last.node, Some(NodeEnum::AStar(_))))
}

fn called(alias: &Option<Alias>) -> Option<Called> {
    let Some(Alias {
        aliasname,
        colnames,
    }) = alias
    else {
        return Some(Called::default());
    };
    Some(Called {
        alias: Some(cut(aliasname).to_owned()).filter(|alias| !alias.is_empty()),
        columns: labels(colnames)?,
    })
}

fn labels(nodes: &[Node]) -> Option<Vec<String>> {
    let label = |node: &Node| walk::string(node).ok().map(|text| cut(text).to_owned());
    nodes.iter().map(label).collect()
}
