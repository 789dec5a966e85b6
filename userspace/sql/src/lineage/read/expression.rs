//! What an expression uses: columns and queries, seen or compared.

use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::super::{How, Use, What, compares};
use super::Reader;
use crate::names::cut;
use crate::walk;

impl Reader {
    pub(super) fn all(&mut self, nodes: &[Node], how: How, uses: &mut Vec<Use>) -> Option<()> {
        nodes.iter().try_for_each(|node| self.uses(node, how, uses))
    }

    pub(super) fn maybe(
        &mut self,
        node: &Option<Box<Node>>,
        how: How,
        uses: &mut Vec<Use>,
    ) -> Option<()> {
        match node {
            Some(node) => self.uses(node, how, uses),
            None => Some(()),
        }
    }

    /// The columns and queries within an expression.
    pub(super) fn uses(&mut self, node: &Node, how: How, uses: &mut Vec<Use>) -> Option<()> {
        let Some(node) = &node.node else {
            return Some(());
        };
        match node {
            NodeEnum::AConst(_) | NodeEnum::ParamRef(_) => Some(()),
            NodeEnum::SqlvalueFunction(_) => Some(()),
            NodeEnum::List(List { items }) => self.all(items, how, uses),
            NodeEnum::ColumnRef(column) => {
                let what = What::Column(self.reference(column)?);
                uses.push(Use { how, what });
                Some(())
            }
            NodeEnum::AExpr(expression) => {
                let AExpr {
                    kind: _,
                    name: _,
                    lexpr,
                    rexpr,
                    rexpr_list_start: _,
                    rexpr_list_end: _,
                    location: _,
                } = &**expression;
                self.maybe(lexpr, how, uses)?;
                self.maybe(rexpr, how, uses)
            }
            NodeEnum::BoolExpr(expression) => {
                let BoolExpr {
                    xpr,
                    boolop: _,
                    args,
                    location: _,
                } = &**expression;
                self.maybe(xpr, how, uses)?;
                self.all(args, how, uses)
            }
            NodeEnum::NullTest(test) => {
                let NullTest {
                    xpr,
                    arg,
                    nulltesttype: _,
                    argisrow: _,
                    location: _,
                } = &**test;
                self.maybe(xpr, how, uses)?;
                self.maybe(arg, how, uses)
            }
            NodeEnum::BooleanTest(test) => {
                let BooleanTest {
                    xpr,
                    arg,
                    booltesttype: _,
                    location: _,
                } = &**test;
                self.maybe(xpr, how, uses)?;
                self.maybe(arg, how, uses)
            }
            NodeEnum::CaseExpr(case) => {
                let CaseExpr {
                    xpr,
                    casetype: _,
                    casecollid: _,
                    arg,
                    args,
                    defresult,
                    location: _,
                } = &**case;
                self.maybe(xpr, how, uses)?;
                self.maybe(arg, how, uses)?;
                self.all(args, how, uses)?;
                self.maybe(defresult, how, uses)
            }
            NodeEnum::CaseWhen(when) => {
                let CaseWhen {
                    xpr,
                    expr,
                    result,
                    location: _,
                } = &**when;
                self.maybe(xpr, how, uses)?;
                self.maybe(expr, how, uses)?;
                self.maybe(result, how, uses)
            }
            NodeEnum::CoalesceExpr(expression) => {
                let CoalesceExpr {
                    xpr,
                    coalescetype: _,
                    coalescecollid: _,
                    args,
                    location: _,
                } = &**expression;
                self.maybe(xpr, how, uses)?;
                self.all(args, how, uses)
            }
            NodeEnum::MinMaxExpr(expression) => {
                let MinMaxExpr {
                    xpr,
                    minmaxtype: _,
                    minmaxcollid: _,
                    inputcollid: _,
                    op: _,
                    args,
                    location: _,
                } = &**expression;
                self.maybe(xpr, how, uses)?;
                self.all(args, how, uses)
            }
            NodeEnum::RowExpr(row) => {
                let RowExpr {
                    xpr,
                    args,
                    row_typeid: _,
                    row_format: _,
                    colnames: _,
                    location: _,
                } = &**row;
                self.maybe(xpr, how, uses)?;
                self.all(args, how, uses)
            }
            NodeEnum::AArrayExpr(array) => {
                let AArrayExpr {
                    elements,
                    list_start: _,
                    list_end: _,
                    location: _,
                } = array;
                self.all(elements, how, uses)
            }
            NodeEnum::CollateClause(clause) => {
                let CollateClause {
                    arg,
                    collname: _,
                    location: _,
                } = &**clause;
                self.maybe(arg, how, uses)
            }
            NodeEnum::TypeCast(cast) => {
                let TypeCast {
                    arg,
                    type_name,
                    location: _,
                } = &**cast;
                self.type_name(type_name.as_ref()?)?;
                self.maybe(arg, how, uses)
            }
            NodeEnum::NamedArgExpr(argument) => {
                let NamedArgExpr {
                    xpr,
                    arg,
                    name: _,
                    argnumber: _,
                    location: _,
                } = &**argument;
                self.maybe(xpr, how, uses)?;
                self.maybe(arg, how, uses)
            }
            NodeEnum::FuncCall(call) => self.call(call, how, uses),
            NodeEnum::GroupingFunc(function) => {
                let GroupingFunc {
                    xpr,
                    args,
                    refs: _,
                    agglevelsup: _,
                    location: _,
                } = &**function;
                self.maybe(xpr, How::View, uses)?;
                self.all(args, How::View, uses)
            }
            NodeEnum::WindowDef(window) => self.window(window, uses),
            NodeEnum::SortBy(sort) => {
                let SortBy {
                    node,
                    sortby_dir: _,
                    sortby_nulls: _,
                    use_op: _,
                    location: _,
                } = &**sort;
                self.maybe(node, how, uses)
            }
            NodeEnum::AIndirection(indirection) => {
                let AIndirection { arg, indirection } = &**indirection;
                self.maybe(arg, How::View, uses)?;
                for step in indirection {
                    match step.node.as_ref()? {
                        NodeEnum::String(field) => {
                            self.columns.insert(cut(&field.sval).to_owned());
                        }
                        NodeEnum::AIndices(indices) => {
                            let AIndices {
                                is_slice: _,
                                lidx,
                                uidx,
                            } = &**indices;
                            self.maybe(lidx, How::View, uses)?;
                            self.maybe(uidx, How::View, uses)?;
                        }
                        NodeEnum::AStar(_) => {}
                        _ => return None,
                    }
                }
                Some(())
            }
            NodeEnum::SubLink(link) => {
                let SubLink {
                    xpr: None,
                    sub_link_type,
                    sub_link_id: _,
                    testexpr,
                    oper_name: _,
                    subselect,
                    location: _,
                } = &**link
                else {
                    return None;
                };
                let how_here = match SubLinkType::try_from(*sub_link_type).ok()? {
                    // Its values are not even computed.
                    SubLinkType::ExistsSublink => How::Filter,
                    SubLinkType::AllSublink
                    | SubLinkType::AnySublink
                    | SubLinkType::ExprSublink
                    | SubLinkType::ArraySublink => how,
                    _ => return None,
                };
                self.maybe(testexpr, how, uses)?;
                let Some(NodeEnum::SelectStmt(query)) = &subselect.as_deref()?.node else {
                    return None;
                };
                let what = What::Query(self.query(query)?);
                uses.push(Use {
                    how: how_here,
                    what,
                });
                Some(())
            }
            _ => None,
        }
    }

    fn call(&mut self, call: &FuncCall, how: How, uses: &mut Vec<Use>) -> Option<()> {
        let FuncCall {
            funcname,
            args,
            agg_order,
            agg_filter,
            over,
            agg_within_group: _,
            agg_star: _,
            agg_distinct,
            func_variadic: _,
            funcformat: _,
            location: _,
        } = call;
        let name = walk::qualified(funcname).ok()?;
        if args.len() == 1 {
            self.columns.insert(name.name.clone());
        }
        let built_in = matches!(name.schema.as_deref(), None | Some("pg_catalog"));
        let plain = agg_order.is_empty() && agg_filter.is_none() && over.is_none() && !agg_distinct;
        let how = match built_in && plain && compares(&name.name) {
            true => how,
            false => How::View,
        };
        self.all(args, how, uses)?;
        self.all(agg_order, How::View, uses)?;
        self.maybe(agg_filter, How::View, uses)?;
        match over {
            Some(window) => self.window(window, uses),
            None => Some(()),
        }
    }

    fn window(&mut self, window: &WindowDef, uses: &mut Vec<Use>) -> Option<()> {
        let WindowDef {
            name: _,
            refname: _,
            partition_clause,
            order_clause,
            frame_options: _,
            start_offset,
            end_offset,
            location: _,
        } = window;
        self.all(partition_clause, How::View, uses)?;
        self.all(order_clause, How::View, uses)?;
        self.maybe(start_offset, How::View, uses)?;
        self.maybe(end_offset, How::View, uses)
    }

    /// What stands in the brackets of a type is a word, not a column.
    fn type_name(&mut self, name: &TypeName) -> Option<()> {
        let TypeName {
            names: _,
            type_oid: _,
            setof: _,
            pct_type: false,
            typmods,
            typemod: _,
            array_bounds: _,
            location: _,
        } = name
        else {
            return None;
        };
        for modifier in typmods {
            match modifier.node.as_ref()? {
                NodeEnum::AConst(_) => {}
                NodeEnum::ColumnRef(word) => {
                    self.reference(word)?;
                }
                _ => return None,
            }
        }
        Some(())
    }
}
