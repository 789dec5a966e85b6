//! The walk.
use lockgate_command::Refusal;
use pg_query::protobuf::ParseResult;

use crate::analysis::Facts;
use crate::prescan::refusal;

pub(crate) fn statements(_: &ParseResult) -> Result<Facts, Refusal> {
    Err(refusal("every statement", "none"))
}
