use pg_query::NodeEnum;
use pg_query::protobuf::Node;

use super::{Visit, Walk, Walked};
use crate::prescan::refusal;

impl Visit for Node {
    fn visit(&self, walk: &mut Walk) -> Walked {
        match &self.node {
            Some(node) => visit(node, walk),
            // An omitted bound of a slice, an omitted argument of a list.
            None => Ok(()),
        }
    }
}

fn visit(node: &NodeEnum, walk: &mut Walk) -> Walked {
    match node {
        // Statements.
        NodeEnum::InsertStmt(node) => node.visit(walk),
        NodeEnum::DeleteStmt(node) => node.visit(walk),
        NodeEnum::UpdateStmt(node) => node.visit(walk),
        NodeEnum::MergeStmt(node) => node.visit(walk),
        NodeEnum::SelectStmt(node) => node.visit(walk),
        NodeEnum::ReturnStmt(node) => node.visit(walk),
        NodeEnum::CreateSchemaStmt(node) => node.visit(walk),
        NodeEnum::AlterTableStmt(node) => node.visit(walk),
        NodeEnum::ReplicaIdentityStmt(node) => node.visit(walk),
        NodeEnum::AlterCollationStmt(node) => node.visit(walk),
        NodeEnum::AlterDomainStmt(node) => node.visit(walk),
        NodeEnum::GrantStmt(node) => node.visit(walk),
        NodeEnum::GrantRoleStmt(node) => node.visit(walk),
        NodeEnum::AlterDefaultPrivilegesStmt(node) => node.visit(walk),
        NodeEnum::CopyStmt(node) => node.visit(walk),
        NodeEnum::VariableSetStmt(node) => node.visit(walk),
        NodeEnum::VariableShowStmt(node) => node.visit(walk),
        NodeEnum::CreateStmt(node) => node.visit(walk),
        NodeEnum::CreateTableSpaceStmt(node) => node.visit(walk),
        NodeEnum::DropTableSpaceStmt(node) => node.visit(walk),
        NodeEnum::AlterTableSpaceOptionsStmt(node) => node.visit(walk),
        NodeEnum::AlterTableMoveAllStmt(node) => node.visit(walk),
        NodeEnum::CreateExtensionStmt(node) => node.visit(walk),
        NodeEnum::AlterExtensionStmt(node) => node.visit(walk),
        NodeEnum::AlterExtensionContentsStmt(node) => node.visit(walk),
        NodeEnum::CreateFdwStmt(node) => node.visit(walk),
        NodeEnum::AlterFdwStmt(node) => node.visit(walk),
        NodeEnum::CreateForeignServerStmt(node) => node.visit(walk),
        NodeEnum::AlterForeignServerStmt(node) => node.visit(walk),
        NodeEnum::CreateForeignTableStmt(node) => node.visit(walk),
        NodeEnum::CreateUserMappingStmt(node) => node.visit(walk),
        NodeEnum::AlterUserMappingStmt(node) => node.visit(walk),
        NodeEnum::DropUserMappingStmt(node) => node.visit(walk),
        NodeEnum::ImportForeignSchemaStmt(node) => node.visit(walk),
        NodeEnum::CreatePolicyStmt(node) => node.visit(walk),
        NodeEnum::AlterPolicyStmt(node) => node.visit(walk),
        NodeEnum::CreateAmStmt(node) => node.visit(walk),
        NodeEnum::CreateTrigStmt(node) => node.visit(walk),
        NodeEnum::CreateEventTrigStmt(node) => node.visit(walk),
        NodeEnum::AlterEventTrigStmt(node) => node.visit(walk),
        NodeEnum::CreatePlangStmt(node) => node.visit(walk),
        NodeEnum::CreateRoleStmt(node) => node.visit(walk),
        NodeEnum::AlterRoleStmt(node) => node.visit(walk),
        NodeEnum::AlterRoleSetStmt(node) => node.visit(walk),
        NodeEnum::DropRoleStmt(node) => node.visit(walk),
        NodeEnum::CreateSeqStmt(node) => node.visit(walk),
        NodeEnum::AlterSeqStmt(node) => node.visit(walk),
        NodeEnum::DefineStmt(node) => node.visit(walk),
        NodeEnum::CreateDomainStmt(node) => node.visit(walk),
        NodeEnum::CreateOpClassStmt(node) => node.visit(walk),
        NodeEnum::CreateOpFamilyStmt(node) => node.visit(walk),
        NodeEnum::AlterOpFamilyStmt(node) => node.visit(walk),
        NodeEnum::DropStmt(node) => node.visit(walk),
        NodeEnum::TruncateStmt(node) => node.visit(walk),
        NodeEnum::CommentStmt(node) => node.visit(walk),
        NodeEnum::SecLabelStmt(node) => node.visit(walk),
        NodeEnum::DeclareCursorStmt(node) => node.visit(walk),
        NodeEnum::ClosePortalStmt(node) => node.visit(walk),
        NodeEnum::FetchStmt(node) => node.visit(walk),
        NodeEnum::IndexStmt(node) => node.visit(walk),
        NodeEnum::CreateStatsStmt(node) => node.visit(walk),
        NodeEnum::AlterStatsStmt(node) => node.visit(walk),
        NodeEnum::CreateFunctionStmt(node) => node.visit(walk),
        NodeEnum::AlterFunctionStmt(node) => node.visit(walk),
        NodeEnum::DoStmt(node) => node.visit(walk),
        NodeEnum::CallStmt(node) => node.visit(walk),
        NodeEnum::RenameStmt(node) => node.visit(walk),
        NodeEnum::AlterObjectDependsStmt(node) => node.visit(walk),
        NodeEnum::AlterObjectSchemaStmt(node) => node.visit(walk),
        NodeEnum::AlterOwnerStmt(node) => node.visit(walk),
        NodeEnum::AlterOperatorStmt(node) => node.visit(walk),
        NodeEnum::AlterTypeStmt(node) => node.visit(walk),
        NodeEnum::RuleStmt(node) => node.visit(walk),
        NodeEnum::NotifyStmt(node) => node.visit(walk),
        NodeEnum::ListenStmt(node) => node.visit(walk),
        NodeEnum::UnlistenStmt(node) => node.visit(walk),
        NodeEnum::TransactionStmt(node) => node.visit(walk),
        NodeEnum::CompositeTypeStmt(node) => node.visit(walk),
        NodeEnum::CreateEnumStmt(node) => node.visit(walk),
        NodeEnum::CreateRangeStmt(node) => node.visit(walk),
        NodeEnum::AlterEnumStmt(node) => node.visit(walk),
        NodeEnum::ViewStmt(node) => node.visit(walk),
        NodeEnum::LoadStmt(node) => node.visit(walk),
        NodeEnum::CreatedbStmt(node) => node.visit(walk),
        NodeEnum::AlterDatabaseStmt(node) => node.visit(walk),
        NodeEnum::AlterDatabaseRefreshCollStmt(node) => node.visit(walk),
        NodeEnum::AlterDatabaseSetStmt(node) => node.visit(walk),
        NodeEnum::DropdbStmt(node) => node.visit(walk),
        NodeEnum::AlterSystemStmt(node) => node.visit(walk),
        NodeEnum::ClusterStmt(node) => node.visit(walk),
        NodeEnum::VacuumStmt(node) => node.visit(walk),
        NodeEnum::ExplainStmt(node) => node.visit(walk),
        NodeEnum::CreateTableAsStmt(node) => node.visit(walk),
        NodeEnum::RefreshMatViewStmt(node) => node.visit(walk),
        NodeEnum::CheckPointStmt(node) => node.visit(walk),
        NodeEnum::DiscardStmt(node) => node.visit(walk),
        NodeEnum::LockStmt(node) => node.visit(walk),
        NodeEnum::ConstraintsSetStmt(node) => node.visit(walk),
        NodeEnum::ReindexStmt(node) => node.visit(walk),
        NodeEnum::CreateConversionStmt(node) => node.visit(walk),
        NodeEnum::CreateCastStmt(node) => node.visit(walk),
        NodeEnum::CreateTransformStmt(node) => node.visit(walk),
        NodeEnum::PrepareStmt(node) => node.visit(walk),
        NodeEnum::ExecuteStmt(node) => node.visit(walk),
        NodeEnum::DeallocateStmt(node) => node.visit(walk),
        NodeEnum::DropOwnedStmt(node) => node.visit(walk),
        NodeEnum::ReassignOwnedStmt(node) => node.visit(walk),
        NodeEnum::AlterTsdictionaryStmt(node) => node.visit(walk),
        NodeEnum::AlterTsconfigurationStmt(node) => node.visit(walk),
        NodeEnum::CreatePublicationStmt(node) => node.visit(walk),
        NodeEnum::AlterPublicationStmt(node) => node.visit(walk),
        NodeEnum::CreateSubscriptionStmt(node) => node.visit(walk),
        NodeEnum::AlterSubscriptionStmt(node) => node.visit(walk),
        NodeEnum::DropSubscriptionStmt(node) => node.visit(walk),

        // What statements are made of.
        NodeEnum::Alias(node) => node.visit(walk),
        NodeEnum::RangeVar(node) => node.visit(walk),
        NodeEnum::IntoClause(node) => node.visit(walk),
        NodeEnum::GroupingFunc(node) => node.visit(walk),
        NodeEnum::MergeSupportFunc(node) => node.visit(walk),
        NodeEnum::NamedArgExpr(node) => node.visit(walk),
        NodeEnum::BoolExpr(node) => node.visit(walk),
        NodeEnum::SubLink(node) => node.visit(walk),
        NodeEnum::CaseExpr(node) => node.visit(walk),
        NodeEnum::CaseWhen(node) => node.visit(walk),
        NodeEnum::RowExpr(node) => node.visit(walk),
        NodeEnum::CoalesceExpr(node) => node.visit(walk),
        NodeEnum::MinMaxExpr(node) => node.visit(walk),
        NodeEnum::SqlvalueFunction(node) => node.visit(walk),
        NodeEnum::XmlExpr(node) => node.visit(walk),
        NodeEnum::JsonFormat(node) => node.visit(walk),
        NodeEnum::JsonReturning(node) => node.visit(walk),
        NodeEnum::JsonValueExpr(node) => node.visit(walk),
        NodeEnum::JsonIsPredicate(node) => node.visit(walk),
        NodeEnum::JsonBehavior(node) => node.visit(walk),
        NodeEnum::NullTest(node) => node.visit(walk),
        NodeEnum::BooleanTest(node) => node.visit(walk),
        NodeEnum::SetToDefault(node) => node.visit(walk),
        NodeEnum::CurrentOfExpr(node) => node.visit(walk),
        NodeEnum::JoinExpr(node) => node.visit(walk),
        NodeEnum::TypeName(node) => node.visit(walk),
        NodeEnum::ColumnRef(node) => node.visit(walk),
        NodeEnum::ParamRef(node) => node.visit(walk),
        NodeEnum::AExpr(node) => node.visit(walk),
        NodeEnum::TypeCast(node) => node.visit(walk),
        NodeEnum::CollateClause(node) => node.visit(walk),
        NodeEnum::RoleSpec(node) => node.visit(walk),
        NodeEnum::FuncCall(node) => node.visit(walk),
        NodeEnum::AStar(node) => node.visit(walk),
        NodeEnum::AIndices(node) => node.visit(walk),
        NodeEnum::AIndirection(node) => node.visit(walk),
        NodeEnum::AArrayExpr(node) => node.visit(walk),
        NodeEnum::ResTarget(node) => node.visit(walk),
        NodeEnum::MultiAssignRef(node) => node.visit(walk),
        NodeEnum::SortBy(node) => node.visit(walk),
        NodeEnum::WindowDef(node) => node.visit(walk),
        NodeEnum::RangeSubselect(node) => node.visit(walk),
        NodeEnum::RangeFunction(node) => node.visit(walk),
        NodeEnum::RangeTableFunc(node) => node.visit(walk),
        NodeEnum::RangeTableFuncCol(node) => node.visit(walk),
        NodeEnum::RangeTableSample(node) => node.visit(walk),
        NodeEnum::ColumnDef(node) => node.visit(walk),
        NodeEnum::TableLikeClause(node) => node.visit(walk),
        NodeEnum::IndexElem(node) => node.visit(walk),
        NodeEnum::DefElem(node) => node.visit(walk),
        NodeEnum::LockingClause(node) => node.visit(walk),
        NodeEnum::XmlSerialize(node) => node.visit(walk),
        NodeEnum::PartitionElem(node) => node.visit(walk),
        NodeEnum::PartitionSpec(node) => node.visit(walk),
        NodeEnum::PartitionBoundSpec(node) => node.visit(walk),
        NodeEnum::PartitionCmd(node) => node.visit(walk),
        NodeEnum::GroupingSet(node) => node.visit(walk),
        NodeEnum::WithClause(node) => node.visit(walk),
        NodeEnum::InferClause(node) => node.visit(walk),
        NodeEnum::OnConflictClause(node) => node.visit(walk),
        NodeEnum::CtesearchClause(node) => node.visit(walk),
        NodeEnum::CtecycleClause(node) => node.visit(walk),
        NodeEnum::CommonTableExpr(node) => node.visit(walk),
        NodeEnum::MergeWhenClause(node) => node.visit(walk),
        NodeEnum::ReturningOption(node) => node.visit(walk),
        NodeEnum::ReturningClause(node) => node.visit(walk),
        NodeEnum::TriggerTransition(node) => node.visit(walk),
        NodeEnum::JsonOutput(node) => node.visit(walk),
        NodeEnum::JsonArgument(node) => node.visit(walk),
        NodeEnum::JsonFuncExpr(node) => node.visit(walk),
        NodeEnum::JsonTablePathSpec(node) => node.visit(walk),
        NodeEnum::JsonTable(node) => node.visit(walk),
        NodeEnum::JsonTableColumn(node) => node.visit(walk),
        NodeEnum::JsonKeyValue(node) => node.visit(walk),
        NodeEnum::JsonParseExpr(node) => node.visit(walk),
        NodeEnum::JsonScalarExpr(node) => node.visit(walk),
        NodeEnum::JsonSerializeExpr(node) => node.visit(walk),
        NodeEnum::JsonObjectConstructor(node) => node.visit(walk),
        NodeEnum::JsonArrayConstructor(node) => node.visit(walk),
        NodeEnum::JsonArrayQueryConstructor(node) => node.visit(walk),
        NodeEnum::JsonAggConstructor(node) => node.visit(walk),
        NodeEnum::JsonObjectAgg(node) => node.visit(walk),
        NodeEnum::JsonArrayAgg(node) => node.visit(walk),
        NodeEnum::AlterTableCmd(node) => node.visit(walk),
        NodeEnum::AtalterConstraint(node) => node.visit(walk),
        NodeEnum::ObjectWithArgs(node) => node.visit(walk),
        NodeEnum::AccessPriv(node) => node.visit(walk),
        NodeEnum::Constraint(node) => node.visit(walk),
        NodeEnum::CreateOpClassItem(node) => node.visit(walk),
        NodeEnum::StatsElem(node) => node.visit(walk),
        NodeEnum::FunctionParameter(node) => node.visit(walk),
        NodeEnum::VacuumRelation(node) => node.visit(walk),
        NodeEnum::PublicationTable(node) => node.visit(walk),
        NodeEnum::PublicationObjSpec(node) => node.visit(walk),
        NodeEnum::Integer(node) => node.visit(walk),
        NodeEnum::Float(node) => node.visit(walk),
        NodeEnum::Boolean(node) => node.visit(walk),
        NodeEnum::String(node) => node.visit(walk),
        NodeEnum::BitString(node) => node.visit(walk),
        NodeEnum::List(node) => node.visit(walk),
        NodeEnum::AConst(node) => node.visit(walk),

        // What only the analysis and the planner make of a tree: none of it
        // comes out of the grammar.
        NodeEnum::Var(_)
        | NodeEnum::Param(_)
        | NodeEnum::Aggref(_)
        | NodeEnum::WindowFunc(_)
        | NodeEnum::WindowFuncRunCondition(_)
        | NodeEnum::SubscriptingRef(_)
        | NodeEnum::FuncExpr(_)
        | NodeEnum::OpExpr(_)
        | NodeEnum::DistinctExpr(_)
        | NodeEnum::NullIfExpr(_)
        | NodeEnum::ScalarArrayOpExpr(_)
        | NodeEnum::SubPlan(_)
        | NodeEnum::AlternativeSubPlan(_)
        | NodeEnum::FieldSelect(_)
        | NodeEnum::FieldStore(_)
        | NodeEnum::RelabelType(_)
        | NodeEnum::CoerceViaIo(_)
        | NodeEnum::ArrayCoerceExpr(_)
        | NodeEnum::ConvertRowtypeExpr(_)
        | NodeEnum::CollateExpr(_)
        | NodeEnum::CaseTestExpr(_)
        | NodeEnum::ArrayExpr(_)
        | NodeEnum::RowCompareExpr(_)
        | NodeEnum::JsonConstructorExpr(_)
        | NodeEnum::JsonExpr(_)
        | NodeEnum::JsonTablePath(_)
        | NodeEnum::JsonTablePathScan(_)
        | NodeEnum::JsonTableSiblingJoin(_)
        | NodeEnum::MergeAction(_)
        | NodeEnum::CoerceToDomain(_)
        | NodeEnum::CoerceToDomainValue(_)
        | NodeEnum::NextValueExpr(_)
        | NodeEnum::InferenceElem(_)
        | NodeEnum::ReturningExpr(_)
        | NodeEnum::TargetEntry(_)
        | NodeEnum::RangeTblRef(_)
        | NodeEnum::FromExpr(_)
        | NodeEnum::OnConflictExpr(_)
        | NodeEnum::Query(_)
        | NodeEnum::TableFunc(_)
        | NodeEnum::RangeTblEntry(_)
        | NodeEnum::RtepermissionInfo(_)
        | NodeEnum::RangeTblFunction(_)
        | NodeEnum::TableSampleClause(_)
        | NodeEnum::WithCheckOption(_)
        | NodeEnum::SortGroupClause(_)
        | NodeEnum::WindowClause(_)
        | NodeEnum::RowMarkClause(_)
        | NodeEnum::RawStmt(_)
        | NodeEnum::SetOperationStmt(_)
        | NodeEnum::PlassignStmt(_)
        | NodeEnum::PartitionRangeDatum(_)
        | NodeEnum::InlineCodeBlock(_)
        | NodeEnum::CallContext(_)
        | NodeEnum::IntList(_)
        | NodeEnum::OidList(_) => Err(refusal(
            "a node that the grammar does not make",
            "report it with the statement",
        )),
    }
}
