//! The options of COPY TO STDOUT.

use pg_query::NodeEnum;
use pg_query::protobuf::{Boolean, DefElem, Integer, Node, String as Text};

use crate::resolve::CopyOut;

/// The form of the rows. A delimiter that could be the second half of a
/// character in some encoding of a client is no form that is known.
pub(super) fn out(options: &[Node]) -> CopyOut {
    form(options).unwrap_or(CopyOut::Other)
}

fn form(options: &[Node]) -> Option<CopyOut> {
    let mut format = None;
    let mut delimiter = None;
    let mut header = None;
    for option in options {
        let Some(NodeEnum::DefElem(option)) = &option.node else {
            return None;
        };
        let DefElem { defname, arg, .. } = &**option;
        let value = arg.as_deref().map(|arg| &arg.node);
        let value = match &value {
            Some(Some(value)) => Some(value),
            Some(None) => return None,
            None => None,
        };
        let set = match defname.as_str() {
            "format" => format.replace(text(value?)?).is_some(),
            "delimiter" => match text(value?)?.as_bytes() {
                [byte] if *byte == b'\t' || is_safe(*byte) => delimiter.replace(*byte).is_some(),
                _ => return None,
            },
            "header" => header.replace(truth(value)?).is_some(),
            "force_quote" => false,
            _ => return None,
        };
        if set {
            // The server refuses it.
            return None;
        }
    }
    let header = header.unwrap_or(false);
    match format.unwrap_or("text") {
        "text" => Some(CopyOut::Text {
            delimiter: delimiter.unwrap_or(b'\t'),
            header,
        }),
        "csv" => Some(CopyOut::Csv {
            delimiter: delimiter.unwrap_or(b','),
            header,
        }),
        "binary" if delimiter.is_none() && !header => Some(CopyOut::Binary),
        _ => None,
    }
}

/// Second bytes of characters are digits and bytes from 0x40 (GB18030, SJIS).
fn is_safe(byte: u8) -> bool {
    matches!(byte, b'!'..=b'?') && !byte.is_ascii_digit() && !matches!(byte, b'"' | b'.')
}

fn text(value: &NodeEnum) -> Option<&str> {
    match value {
        NodeEnum::String(Text { sval }) => Some(sval),
        _ => None,
    }
}

/// As the server reads it (`defGetCopyHeaderChoice`).
fn truth(value: Option<&NodeEnum>) -> Option<bool> {
    match value {
        None => Some(true),
        Some(NodeEnum::Boolean(Boolean { boolval })) => Some(*boolval),
        Some(NodeEnum::Integer(Integer { ival: 0 })) => Some(false),
        Some(NodeEnum::Integer(Integer { ival: 1 })) => Some(true),
        Some(NodeEnum::String(Text { sval })) => match sval.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
