use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node, ObjectWithArgs};

use super::{Walk, Walked, items, qualified, string, unknown_node};
use crate::names::{Need, cut};

/// `verb` on an object of `kind`, in any of the forms in which DROP, COMMENT,
/// GRANT and ALTER … RENAME name objects.
pub(super) fn object(
    walk: &mut Walk,
    verb: Verb,
    kind: protobuf::ObjectType,
    named: Option<&Node>,
) -> Walked {
    use protobuf::ObjectType::*;
    let named = named.ok_or_else(unknown_node)?;
    match kind {
        ObjectTable | ObjectView | ObjectMatview | ObjectIndex | ObjectSequence
        | ObjectForeignTable => relation(walk, verb, named),

        // Their table comes before their own name.
        ObjectColumn | ObjectAttribute | ObjectRule | ObjectTrigger | ObjectPolicy
        | ObjectTabconstraint => {
            on_relation(walk, kind)?;
            let (_, table) = items(named).split_last().ok_or_else(unknown_node)?;
            match table {
                [] => Ok(()),
                table => {
                    let verb = if verb == Verb::Grant {
                        Verb::Grant
                    } else {
                        Verb::Alter
                    };
                    walk.need(Need::Relation(verb, qualified(table)?));
                    Ok(())
                }
            }
        }

        ObjectType
        | ObjectDomain
        | ObjectDomconstraint
        | ObjectCollation
        | ObjectConversion
        | ObjectStatisticExt
        | ObjectTsconfiguration
        | ObjectTsdictionary
        | ObjectTsparser
        | ObjectTstemplate => in_schema(walk, verb, named),

        ObjectFunction | ObjectProcedure | ObjectRoutine | ObjectAggregate | ObjectOperator => {
            function(walk, verb, named)
        }

        // What code is run for a type, a language or an event.
        ObjectOpclass | ObjectOpfamily | ObjectAmop | ObjectAmproc | ObjectAccessMethod
        | ObjectCast | ObjectTransform | ObjectLanguage | ObjectExtension | ObjectEventTrigger => {
            walk.code();
            Ok(())
        }

        ObjectSchema => {
            walk.need(Need::Schema(verb, cut(string(named)?).to_owned()));
            walk.facts.names_change = true;
            Ok(())
        }
        ObjectDatabase => {
            walk.need(Need::OtherDatabase(verb, cut(string(named)?).to_owned()));
            Ok(())
        }
        ObjectRole | ObjectUserMapping => {
            walk.target(Verb::Role);
            Ok(())
        }
        // What reaches out of the database.
        ObjectTablespace
        | ObjectFdw
        | ObjectForeignServer
        | ObjectSubscription
        | ObjectPublication
        | ObjectPublicationNamespace
        | ObjectPublicationRel
        | ObjectParameterAcl => {
            walk.target(Verb::System);
            Ok(())
        }
        ObjectLargeobject => {
            walk.database(Verb::Opaque);
            Ok(())
        }
        ObjectDefault | ObjectDefacl | Undefined => Err(unknown_node()),
    }
}

/// What a change of a part of a relation is besides `alter` of the relation.
pub(super) fn on_relation(walk: &mut Walk, kind: protobuf::ObjectType) -> Walked {
    match kind {
        protobuf::ObjectType::ObjectRule | protobuf::ObjectType::ObjectTrigger => walk.code(),
        protobuf::ObjectType::ObjectPolicy => walk.database(Verb::Grant),
        _ => {}
    }
    Ok(())
}

fn relation(walk: &mut Walk, verb: Verb, named: &Node) -> Walked {
    match &named.node {
        Some(NodeEnum::RangeVar(relation)) => walk.relation(verb, relation),
        _ => walk.need(Need::Relation(verb, qualified(items(named))?)),
    }
    Ok(())
}

fn in_schema(walk: &mut Walk, verb: Verb, named: &Node) -> Walked {
    // A constraint of a domain is named after its domain.
    let first = match &named.node {
        Some(NodeEnum::List(list)) => match list.items.first() {
            Some(
                first @ Node {
                    node: Some(NodeEnum::TypeName(_)),
                },
            ) => first,
            _ => named,
        },
        _ => named,
    };
    let name = match &first.node {
        Some(NodeEnum::TypeName(name)) => qualified(&name.names)?,
        _ => qualified(items(first))?,
    };
    walk.need(Need::InSchema(verb, name));
    Ok(())
}

fn function(walk: &mut Walk, verb: Verb, named: &Node) -> Walked {
    match &named.node {
        Some(NodeEnum::ObjectWithArgs(function)) => {
            let ObjectWithArgs {
                objname,
                objargs: _,
                objfuncargs: _,
                args_unspecified: _,
            } = function;
            walk.need(Need::FunctionObject(verb, qualified(objname)?));
            Ok(())
        }
        _ => Err(unknown_node()),
    }
}
