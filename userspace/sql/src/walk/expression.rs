//! Expressions: what is called, compared, converted, and which columns.

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known, qualified, string, strings};
use crate::builtin::{FunctionClass, function_class};
use crate::names::{Name, Need};
use crate::settings;

impl Visit for ColumnRef {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            fields,
            location: _,
        } = self;
        walk.reads_columns = true;
        if is_star(self) {
            walk.facts.all_columns = true;
            // `t.*` is the whole row, but for a target.
            walk.facts.composes = true;
            return Ok(());
        }
        if let Some(last) = fields.last() {
            let last = string(last)?;
            walk.column(last);
            // `x.f` is f(x) where x has no column f.
            if fields.len() > 1 {
                walk.need(Need::Attribute(crate::names::cut(last).to_owned()));
            }
        }
        Ok(())
    }
}

/// `*`, `t.*`.
fn is_star(column: &ColumnRef) -> bool {
    let last = column.fields.last();
    last.is_some_and(|last| matches!(last.node, Some(NodeEnum::AStar(_))))
}

/// `(x).f`, `x[1]`, `(x).*`.
impl Visit for AIndirection {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { arg, indirection } = self;
        arg.visit(walk)?;
        for step in indirection {
            match &step.node {
                Some(NodeEnum::String(field)) => {
                    walk.column(&field.sval);
                    walk.need(Need::Attribute(crate::names::cut(&field.sval).to_owned()));
                }
                _ => step.visit(walk)?,
            }
        }
        Ok(())
    }
}

impl Visit for AStar {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {} = self;
        walk.facts.all_columns = true;
        Ok(())
    }
}

impl Visit for FuncCall {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            funcname,
            args,
            agg_order,
            agg_filter,
            over,
            agg_within_group: _,
            agg_star: _,
            agg_distinct: _,
            func_variadic: _,
            funcformat,
            location: _,
        } = self;
        known::<CoercionForm>(*funcformat)?;
        args.visit(walk)?;
        agg_order.visit(walk)?;
        agg_filter.visit(walk)?;
        over.visit(walk)?;
        let name = qualified(funcname)?;
        // `f(x)` is x.f where x has a column f.
        if args.len() == 1 {
            walk.column(&name.name);
        }
        call(walk, name, args)
    }
}

/// A call is by name; two kinds of built-in functions say more by their
/// arguments.
fn call(walk: &mut Walk, name: Name, args: &[Node]) -> Walked {
    let built_in = matches!(name.schema.as_deref(), None | Some("pg_catalog"));
    match function_class(&name.name).filter(|_| built_in) {
        Some(FunctionClass::Settings) => {
            let (setting, value) = match args {
                [setting, value, ..] => (setting, value),
                _ => return Err(settings::not_constant()),
            };
            let setting = match constant(setting) {
                Some(setting) => Some(setting.to_owned()),
                None => walk.setting.clone().filter(|_| is_name(setting)),
            };
            let values = match constant(value) {
                Some(value) => &[value][..],
                // Whoever binds it says what it is; a column's value would be kept
                // where no table shows it.
                None if is_parameter(value) => &[],
                None => return Err(settings::not_constant()),
            };
            match setting {
                Some(setting) => settings::set(walk, &setting, Some(values))?,
                None => return Err(settings::not_constant()),
            }
            walk.need(Need::OtherFunction(name));
        }
        Some(FunctionClass::Sequence) => match args.first().and_then(constant).and_then(relation) {
            Some(sequence) => {
                walk.need(Need::Relation(Verb::UseSequence, sequence));
                walk.need(Need::OtherFunction(name));
            }
            None => walk.need(Need::Function(name)),
        },
        _ => walk.need(Need::Function(name)),
    }
    Ok(())
}

/// A string that is written in the statement, with or without a cast.
pub(super) fn constant(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::AConst(AConst {
            isnull: false,
            location: _,
            val: Some(a_const::Val::Sval(text)),
        }) => Some(&text.sval),
        NodeEnum::TypeCast(cast) => constant(cast.arg.as_ref()?),
        _ => None,
    }
}

/// `$1`, with or without a cast.
fn is_parameter(node: &Node) -> bool {
    match &node.node {
        Some(NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_parameter),
        _ => false,
    }
}

/// The column `name` and no other.
pub(super) fn is_name(node: &Node) -> bool {
    match &node.node {
        Some(NodeEnum::ColumnRef(column)) => {
            matches!(&column.fields[..], [field] if string(field) == Ok("name"))
        }
        _ => false,
    }
}

/// A relation's name in a string, where it is plain enough to be read with
/// certainty.
fn relation(text: &str) -> Option<Name> {
    let plain = |part: &str| {
        let mut characters = part.chars();
        characters
            .next()
            .is_some_and(|first| first.is_ascii_lowercase() || first == '_')
            && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let parts: Vec<&str> = text.split('.').collect();
    match parts[..] {
        [name] if plain(name) => Some(Name::new(None, name)),
        [schema, name] if plain(schema) && plain(name) => Some(Name::new(Some(schema), name)),
        _ => None,
    }
}

impl Visit for AExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            kind,
            name,
            lexpr,
            rexpr,
            rexpr_list_start: _,
            rexpr_list_end: _,
            location: _,
        } = self;
        lexpr.visit(walk)?;
        rexpr.visit(walk)?;
        beside_column(walk, lexpr.as_deref(), rexpr.as_deref());
        let plain: &[&str] = match known(*kind)? {
            AExprKind::Undefined => return Err(super::unknown_node()),
            AExprKind::AexprOp | AExprKind::AexprOpAny | AExprKind::AexprOpAll => {
                walk.need(Need::Operator(qualified(name)?));
                return Ok(());
            }
            // Their name is that of the operator that they stand for.
            AExprKind::AexprIn
            | AExprKind::AexprLike
            | AExprKind::AexprIlike
            | AExprKind::AexprSimilar
            | AExprKind::AexprNullif
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct => {
                walk.need(Need::Operator(qualified(name)?));
                return Ok(());
            }
            AExprKind::AexprBetween | AExprKind::AexprBetweenSym => &["<=", ">="],
            AExprKind::AexprNotBetween | AExprKind::AexprNotBetweenSym => &["<", ">"],
        };
        for operator in plain {
            walk.need(Need::Operator(Name::new(None, operator)));
        }
        Ok(())
    }
}

/// Literals that an operator takes beside a column, as in `id = 42`, `id IN (1,
/// 2)`. What such a statement does is the same for each value of them, and
/// nothing here may look at it. One beside another literal is not among them
/// (`1 = 1` says something of itself), nor beside a column `name`, which tells
/// the setting that a row of pg_settings is of.
fn beside_column(walk: &mut Walk, left: Option<&Node>, right: Option<&Node>) {
    let is_column =
        |node: &Node| matches!(&node.node, Some(NodeEnum::ColumnRef(_))) && !is_name(node);
    let (Some(left), Some(right)) = (left, right) else {
        return;
    };
    let literals = match (is_column(left), is_column(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return,
    };
    match &literals.node {
        Some(NodeEnum::List(List { items })) => {
            items.iter().for_each(|item| walk.indifferent(item))
        }
        _ => walk.indifferent(literals),
    }
}

impl Visit for SubLink {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            sub_link_type,
            sub_link_id: _,
            testexpr,
            oper_name,
            subselect,
            location: _,
        } = self;
        xpr.visit(walk)?;
        testexpr.visit(walk)?;
        let kind: SubLinkType = known(*sub_link_type)?;
        match (kind, oper_name.is_empty()) {
            // `x IN (SELECT …)`.
            (SubLinkType::AnySublink, true) => walk.need(Need::Operator(Name::new(None, "="))),
            (SubLinkType::ArraySublink, true) => walk.facts.composes = true,
            (_, true) => {}
            (_, false) => walk.need(Need::Operator(qualified(oper_name)?)),
        }
        // What a locking clause of the outer query locks ends here.
        let locked = std::mem::take(&mut walk.locked);
        subselect.visit(walk)?;
        walk.locked = locked;
        Ok(())
    }
}

impl Visit for CaseExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            casetype: _,
            casecollid: _,
            arg,
            args,
            defresult,
            location: _,
        } = self;
        xpr.visit(walk)?;
        if arg.is_some() {
            walk.need(Need::Operator(Name::new(None, "=")));
        }
        arg.visit(walk)?;
        args.visit(walk)?;
        defresult.visit(walk)
    }
}

impl Visit for TypeName {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            names,
            type_oid: _,
            setof: _,
            pct_type,
            typmods,
            typemod: _,
            array_bounds,
            location: _,
        } = self;
        typmods.visit(walk)?;
        array_bounds.visit(walk)?;
        if *pct_type {
            // `t.c%TYPE` is the type of a column.
            let parts = strings(names)?;
            if let [.., table, column] = parts[..] {
                let schema = parts.len().checked_sub(3).map(|at| parts[at]);
                walk.column(column);
                walk.need(Need::Relation(Verb::Describe, Name::new(schema, table)));
            }
            return Ok(());
        }
        if !names.is_empty() {
            walk.need(Need::Type(qualified(names)?));
        }
        Ok(())
    }
}

impl Visit for CollateClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            arg,
            collname,
            location: _,
        } = self;
        arg.visit(walk)?;
        walk.need(Need::Collation(qualified(collname)?));
        Ok(())
    }
}

/// `label`, `value AS label`. Where the name is a column's, the statement
/// that holds it says so.
impl Visit for ResTarget {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name: _,
            indirection,
            val,
            location: _,
        } = self;
        for step in indirection {
            match &step.node {
                Some(NodeEnum::String(field)) => walk.column(&field.sval),
                _ => step.visit(walk)?,
            }
        }
        let composes = walk.facts.composes;
        val.visit(walk)?;
        match val.as_ref().map(|val| &val.node) {
            Some(Some(NodeEnum::ColumnRef(column))) if is_star(column) => {
                walk.facts.composes = composes;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Visit for AConst {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            isnull: _,
            location: _,
            val,
        } = self;
        match val {
            None
            | Some(
                a_const::Val::Ival(_)
                | a_const::Val::Fval(_)
                | a_const::Val::Boolval(_)
                | a_const::Val::Sval(_)
                | a_const::Val::Bsval(_),
            ) => Ok(()),
        }
    }
}

/// `ORDER BY x USING <`.
impl Visit for SortBy {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            node,
            sortby_dir,
            sortby_nulls,
            use_op,
            location: _,
        } = self;
        known::<SortByDir>(*sortby_dir)?;
        known::<SortByNulls>(*sortby_nulls)?;
        node.visit(walk)?;
        if !use_op.is_empty() {
            walk.need(Need::Operator(qualified(use_op)?));
        }
        Ok(())
    }
}
