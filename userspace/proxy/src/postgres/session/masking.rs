//! Results whose values are masked on their way to the client.

use std::sync::Arc;

use lockgate_command::{Denial, Shown};
use lockgate_sql::{CopyOut, Resolved};
use lockgate_wire_postgres::{CopyRows, Masking};

use super::Session;

/// SQL and the code that it runs can read a portal by its name, past the mask.
pub(super) const NAMED: &str = "Bind of a result with masked values to a named portal";
pub(super) const NAMED_HINT: &str =
    "fetch the whole result, without a cursor; then drivers use the unnamed portal";

pub(super) const AMBIGUOUS: &str =
    "Bind of a statement whose name may stand for several texts, one with masked values";
pub(super) const AMBIGUOUS_HINT: &str =
    "wait for the answer to Parse before Bind, or use another name";

pub(super) const BESIDE: &str = "Execute of a portal while a result with masked values is open";
pub(super) const BESIDE_HINT: &str = "fetch the masked result to its end first, and wait for it";

/// A permitted command, and what of its result is masked.
pub(super) struct Masked {
    pub(super) masking: Arc<Masking>,
    pub(super) columns: Arc<[Shown]>,
}

impl Session {
    pub(super) fn masked(
        &self,
        resolved: &Resolved,
        columns: Arc<[Shown]>,
    ) -> Result<Masked, Arc<Denial>> {
        let cannot = || Arc::new(unmaskable());
        let copy = match resolved.effects.copy_out {
            CopyOut::None => None,
            // Half of a character can look like what stands between columns, and
            // code that was called may have changed the encoding unheard.
            CopyOut::Text { .. } | CopyOut::Csv { .. }
                if !self.reading.utf8
                    || (self.execute_is_opaque && !self.relay.is_idle_outside_transaction()) =>
            {
                return Err(cannot());
            }
            CopyOut::Text { delimiter, header } => Some(CopyRows::Text { delimiter, header }),
            CopyOut::Csv { delimiter, header } => Some(CopyRows::Csv { delimiter, header }),
            CopyOut::Binary => Some(CopyRows::Binary),
            CopyOut::Other => return Err(cannot()),
        };
        let masks = columns.iter().map(|shown| {
            let (_, masker) = self.target.masker(shown).map_err(|_| cannot())?;
            Ok((shown.output, masker))
        });
        let masks: Vec<_> = masks.collect::<Result<_, Arc<Denial>>>()?;
        let outputs = resolved.statement.outputs.ok_or_else(cannot)?;
        let masking = Masking::new(outputs, masks, copy).ok_or_else(cannot)?;
        Ok(Masked {
            masking: masking.into(),
            columns,
        })
    }

    /// While a masked result waits to be fetched, code could read it by the name
    /// that the unnamed portal has, which is empty. Statements of a Query and
    /// other Binds take that portal's place first; what runs another portal does
    /// not.
    pub(super) fn is_beside_a_masked_portal(&self, tickets: &[u64]) -> bool {
        self.masked
            .is_some_and(|masked| !tickets.contains(&masked) && self.relay.may_be_open(masked))
    }

    /// Whether what was bound by `ticket` is masked just as `columns` must be
    /// now.
    pub(super) fn is_masked_so(&self, ticket: u64, columns: &[Shown]) -> bool {
        let Some(bound) = self.bound.get(&ticket) else {
            return false;
        };
        let before = bound.settings.target(self.intercepted.origin.original);
        let same_masks = before.is_some_and(|(target, _)| {
            target.config.tags == self.target.config.tags
                && bound.settings.bundle.config.mask == self.settings.bundle.config.mask
        });
        same_masks && bound.masked.as_deref() == Some(columns)
    }
}

/// For a result whose values may only be seen masked, where that cannot be done.
pub(super) fn unmaskable() -> Denial {
    Denial {
        message: "lockgate: refused: the result shows values that may only be seen masked".into(),
        hint: "send the statement again; if it is a cursor, fetch the whole result instead, leave the tagged columns out, or ask for `view` on them".into(),
        policies: Vec::new(),
        access: None,
    }
}
