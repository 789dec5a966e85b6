//! Expressions that hold others and do nothing of their own, and values.

use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known};

impl Visit for AIndices {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            is_slice: _,
            lidx,
            uidx,
        } = self;
        lidx.visit(walk)?;
        uidx.visit(walk)?;
        Ok(())
    }
}

impl Visit for AArrayExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            elements,
            list_start: _,
            list_end: _,
            location: _,
        } = self;
        walk.facts.composes = true;
        elements.visit(walk)?;
        Ok(())
    }
}

impl Visit for BoolExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            boolop,
            args,
            location: _,
        } = self;
        known::<BoolExprType>(*boolop)?;
        xpr.visit(walk)?;
        args.visit(walk)?;
        Ok(())
    }
}

impl Visit for CaseWhen {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            expr,
            result,
            location: _,
        } = self;
        xpr.visit(walk)?;
        expr.visit(walk)?;
        result.visit(walk)?;
        Ok(())
    }
}

impl Visit for CoalesceExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            coalescetype: _,
            coalescecollid: _,
            args,
            location: _,
        } = self;
        xpr.visit(walk)?;
        args.visit(walk)?;
        Ok(())
    }
}

impl Visit for MinMaxExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            minmaxtype: _,
            minmaxcollid: _,
            inputcollid: _,
            op,
            args,
            location: _,
        } = self;
        known::<MinMaxOp>(*op)?;
        xpr.visit(walk)?;
        args.visit(walk)?;
        Ok(())
    }
}

impl Visit for NullTest {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            arg,
            nulltesttype,
            argisrow: _,
            location: _,
        } = self;
        known::<NullTestType>(*nulltesttype)?;
        xpr.visit(walk)?;
        arg.visit(walk)?;
        Ok(())
    }
}

impl Visit for BooleanTest {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            arg,
            booltesttype,
            location: _,
        } = self;
        known::<BoolTestType>(*booltesttype)?;
        xpr.visit(walk)?;
        arg.visit(walk)?;
        Ok(())
    }
}

impl Visit for RowExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            args,
            row_typeid: _,
            row_format,
            colnames,
            location: _,
        } = self;
        known::<CoercionForm>(*row_format)?;
        walk.facts.composes = true;
        xpr.visit(walk)?;
        args.visit(walk)?;
        colnames.visit(walk)?;
        Ok(())
    }
}

impl Visit for SetToDefault {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            type_id: _,
            type_mod: _,
            collation: _,
            location: _,
        } = self;
        xpr.visit(walk)?;
        Ok(())
    }
}

impl Visit for CurrentOfExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            cvarno: _,
            cursor_name: _,
            cursor_param: _,
        } = self;
        xpr.visit(walk)?;
        Ok(())
    }
}

impl Visit for GroupingFunc {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            args,
            refs,
            agglevelsup: _,
            location: _,
        } = self;
        xpr.visit(walk)?;
        args.visit(walk)?;
        refs.visit(walk)?;
        Ok(())
    }
}

impl Visit for MergeSupportFunc {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            msftype: _,
            msfcollid: _,
            location: _,
        } = self;
        xpr.visit(walk)?;
        Ok(())
    }
}

impl Visit for MultiAssignRef {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            source,
            colno: _,
            ncolumns: _,
        } = self;
        source.visit(walk)?;
        Ok(())
    }
}

impl Visit for NamedArgExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            arg,
            name: _,
            argnumber: _,
            location: _,
        } = self;
        xpr.visit(walk)?;
        arg.visit(walk)?;
        Ok(())
    }
}

impl Visit for ParamRef {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            number: _,
            location: _,
        } = self;
        Ok(())
    }
}

impl Visit for SqlValueFunction {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            op,
            r#type: _,
            typmod: _,
            location: _,
        } = self;
        known::<SqlValueFunctionOp>(*op)?;
        xpr.visit(walk)?;
        Ok(())
    }
}

impl Visit for TypeCast {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            arg,
            type_name,
            location: _,
        } = self;
        arg.visit(walk)?;
        type_name.visit(walk)?;
        Ok(())
    }
}

impl Visit for List {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { items } = self;
        items.visit(walk)?;
        Ok(())
    }
}

// Values, and names that whoever holds them has read.

impl Visit for Integer {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self { ival: _ } = self;
        Ok(())
    }
}

impl Visit for Float {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self { fval: _ } = self;
        Ok(())
    }
}

impl Visit for Boolean {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self { boolval: _ } = self;
        Ok(())
    }
}

impl Visit for String {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self { sval: _ } = self;
        Ok(())
    }
}

impl Visit for BitString {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self { bsval: _ } = self;
        Ok(())
    }
}

impl Visit for Alias {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            aliasname: _,
            colnames,
        } = self;
        colnames.visit(walk)?;
        Ok(())
    }
}
