//! Code that runs in the server, and definitions that name such code.

use lockgate_command::Verb;
use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known, qualified};
use crate::names::Need;

/// The text of the block is in a language that is not read.
impl Visit for DoStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { args } = self;
        walk.code();
        args.visit(walk)
    }
}

/// A procedure is called by name, like a function.
impl Visit for CallStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            funccall,
            funcexpr,
            outargs,
        } = self;
        if let Some(call) = funccall {
            walk.need(Need::Function(qualified(&call.funcname)?));
            call.args.visit(walk)?;
        }
        match funcexpr {
            Some(_) => Err(super::unknown_node()),
            None => outargs.visit(walk),
        }
    }
}

impl Visit for CreateFunctionStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            is_procedure: _,
            replace: _,
            funcname,
            parameters,
            return_type,
            options,
            sql_body,
        } = self;
        walk.need(Need::FunctionObject(Verb::Create, qualified(funcname)?));
        walk.code();
        parameters.visit(walk)?;
        return_type.visit(walk)?;
        options.visit(walk)?;
        walk.apart(sql_body)
    }
}

impl Visit for AlterFunctionStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            objtype,
            func,
            actions,
        } = self;
        known::<ObjectType>(*objtype)?;
        if let Some(function) = func {
            walk.need(Need::FunctionObject(
                Verb::Alter,
                qualified(&function.objname)?,
            ));
        }
        walk.code();
        actions.visit(walk)
    }
}

/// Statements that only say which code is run, when, or in which language.
macro_rules! code {
    ($($statement:ident { $($field:ident),* } besides { $($other:ident),* })*) => {$(
        impl Visit for $statement {
            fn visit(&self, walk: &mut Walk) -> Walked {
                let Self { $($field,)* $($other: _),* } = self;
                walk.code();
                $($field.visit(walk)?;)*
                Ok(())
            }
        }
    )*};
}

code! {
    AlterEventTrigStmt { } besides { trigname, tgenabled }
    AlterExtensionContentsStmt { } besides { extname, action, objtype, object }
    AlterExtensionStmt { options } besides { extname }
    AlterOpFamilyStmt { items } besides { opfamilyname, amname, is_drop }
    AlterOperatorStmt { options } besides { opername }
    AlterTsConfigurationStmt { tokentype } besides { kind, cfgname, dicts, r#override, replace, missing_ok }
    AlterTsDictionaryStmt { options } besides { dictname }
    CreateAmStmt { } besides { amname, handler_name, amtype }
    CreateCastStmt { sourcetype, targettype } besides { func, context, inout }
    CreateConversionStmt { } besides { conversion_name, for_encoding_name, to_encoding_name, func_name, def }
    CreateEventTrigStmt { whenclause } besides { trigname, eventname, funcname }
    CreateExtensionStmt { options } besides { extname, if_not_exists }
    CreateOpClassStmt { datatype, items } besides { opclassname, opfamilyname, amname, is_default }
    CreateOpFamilyStmt { } besides { opfamilyname, amname }
    CreatePLangStmt { } besides { replace, plname, plhandler, plinline, plvalidator, pltrusted }
    CreateTransformStmt { type_name } besides { replace, lang, fromsql, tosql }
}

/// `RETURN expression` in a function's body.
impl Visit for ReturnStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { returnval } = self;
        returnval.visit(walk)?;
        Ok(())
    }
}
