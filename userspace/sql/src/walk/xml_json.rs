//! SQL/XML and SQL/JSON. All of it is PostgreSQL's own code; what it is given
//! are expressions, and types to return.

use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known};

impl Visit for XmlExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xpr,
            op,
            name: _,
            named_args,
            arg_names,
            args,
            xmloption,
            indent: _,
            r#type: _,
            typmod: _,
            location: _,
        } = self;
        known::<XmlExprOp>(*op)?;
        known::<XmlOptionType>(*xmloption)?;
        xpr.visit(walk)?;
        named_args.visit(walk)?;
        arg_names.visit(walk)?;
        args.visit(walk)?;
        Ok(())
    }
}

impl Visit for XmlSerialize {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            xmloption,
            expr,
            type_name,
            indent: _,
            location: _,
        } = self;
        known::<XmlOptionType>(*xmloption)?;
        expr.visit(walk)?;
        type_name.visit(walk)?;
        Ok(())
    }
}

impl Visit for RangeTableFunc {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            lateral: _,
            docexpr,
            rowexpr,
            namespaces,
            columns,
            alias,
            location: _,
        } = self;
        docexpr.visit(walk)?;
        rowexpr.visit(walk)?;
        namespaces.visit(walk)?;
        columns.visit(walk)?;
        alias.visit(walk)?;
        Ok(())
    }
}

impl Visit for RangeTableFuncCol {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            colname: _,
            type_name,
            for_ordinality: _,
            is_not_null: _,
            colexpr,
            coldefexpr,
            location: _,
        } = self;
        type_name.visit(walk)?;
        colexpr.visit(walk)?;
        coldefexpr.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonFormat {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            format_type,
            encoding,
            location: _,
        } = self;
        known::<JsonFormatType>(*format_type)?;
        known::<JsonEncoding>(*encoding)?;
        Ok(())
    }
}

impl Visit for JsonReturning {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            format,
            typid: _,
            typmod: _,
        } = self;
        format.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonValueExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            raw_expr,
            formatted_expr,
            format,
        } = self;
        raw_expr.visit(walk)?;
        formatted_expr.visit(walk)?;
        format.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonIsPredicate {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            expr,
            format,
            item_type,
            unique_keys: _,
            location: _,
        } = self;
        known::<JsonValueType>(*item_type)?;
        expr.visit(walk)?;
        format.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonBehavior {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            btype,
            expr,
            coerce: _,
            location: _,
        } = self;
        known::<JsonBehaviorType>(*btype)?;
        expr.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonOutput {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            type_name,
            returning,
        } = self;
        type_name.visit(walk)?;
        returning.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonArgument {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { val, name: _ } = self;
        val.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonFuncExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            op,
            column_name: _,
            context_item,
            pathspec,
            passing,
            output,
            on_empty,
            on_error,
            wrapper,
            quotes,
            location: _,
        } = self;
        known::<JsonExprOp>(*op)?;
        known::<JsonWrapper>(*wrapper)?;
        known::<JsonQuotes>(*quotes)?;
        context_item.visit(walk)?;
        pathspec.visit(walk)?;
        passing.visit(walk)?;
        output.visit(walk)?;
        on_empty.visit(walk)?;
        on_error.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonTablePathSpec {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            string,
            name: _,
            name_location: _,
            location: _,
        } = self;
        string.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonTable {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            context_item,
            pathspec,
            passing,
            columns,
            on_error,
            alias,
            lateral: _,
            location: _,
        } = self;
        context_item.visit(walk)?;
        pathspec.visit(walk)?;
        passing.visit(walk)?;
        columns.visit(walk)?;
        on_error.visit(walk)?;
        alias.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonTableColumn {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            coltype,
            name: _,
            type_name,
            pathspec,
            format,
            wrapper,
            quotes,
            columns,
            on_empty,
            on_error,
            location: _,
        } = self;
        known::<JsonTableColumnType>(*coltype)?;
        known::<JsonWrapper>(*wrapper)?;
        known::<JsonQuotes>(*quotes)?;
        type_name.visit(walk)?;
        pathspec.visit(walk)?;
        format.visit(walk)?;
        columns.visit(walk)?;
        on_empty.visit(walk)?;
        on_error.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonKeyValue {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { key, value } = self;
        key.visit(walk)?;
        value.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonParseExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            expr,
            output,
            unique_keys: _,
            location: _,
        } = self;
        expr.visit(walk)?;
        output.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonScalarExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            expr,
            output,
            location: _,
        } = self;
        expr.visit(walk)?;
        output.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonSerializeExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            expr,
            output,
            location: _,
        } = self;
        expr.visit(walk)?;
        output.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonObjectConstructor {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            exprs,
            output,
            absent_on_null: _,
            unique: _,
            location: _,
        } = self;
        exprs.visit(walk)?;
        output.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonArrayConstructor {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            exprs,
            output,
            absent_on_null: _,
            location: _,
        } = self;
        exprs.visit(walk)?;
        output.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonArrayQueryConstructor {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            query,
            output,
            format,
            absent_on_null: _,
            location: _,
        } = self;
        query.visit(walk)?;
        output.visit(walk)?;
        format.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonAggConstructor {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            output,
            agg_filter,
            agg_order,
            over,
            location: _,
        } = self;
        output.visit(walk)?;
        agg_filter.visit(walk)?;
        agg_order.visit(walk)?;
        over.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonObjectAgg {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            constructor,
            arg,
            absent_on_null: _,
            unique: _,
        } = self;
        constructor.visit(walk)?;
        arg.visit(walk)?;
        Ok(())
    }
}

impl Visit for JsonArrayAgg {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            constructor,
            arg,
            absent_on_null: _,
        } = self;
        constructor.visit(walk)?;
        arg.visit(walk)?;
        Ok(())
    }
}
