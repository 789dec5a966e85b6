//! What was opened before and is read on: FETCH.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use lockgate_command::{Denial, Verdict};
use lockgate_sql::{Analysis, Resolved};

use super::masking::unmaskable;
use super::{Bound, Session, SessionError};
use crate::settings::Settings;

/// Cursors that are remembered for a later FETCH.
const DECLARED: usize = 1024;

/// What was declared in SQL. Names are not followed: a FETCH may be of any.
#[derive(Default)]
pub(super) struct Cursors {
    declared: VecDeque<Bound>,
    /// Under which settings the last of those was declared that were too many.
    forgotten: Option<Arc<Settings>>,
}

impl Cursors {
    pub(super) fn declare(&mut self, cursor: Bound) {
        let same = |known: &Bound| {
            Arc::ptr_eq(&known.analysis, &cursor.analysis)
                && Arc::ptr_eq(&known.settings, &cursor.settings)
        };
        if self.declared.iter().any(same) {
            return;
        }
        if self.declared.len() >= DECLARED {
            self.declared.pop_front();
            self.forgotten = Some(cursor.settings.clone());
        }
        self.declared.push_back(cursor);
    }
}

impl Session {
    /// Why `resolved` may not be done, whatever the policy says of it alone: a
    /// FETCH goes on with what was decided before, which a changed policy may
    /// not permit any more. To look may bring other settings, so what the text
    /// does is said anew.
    pub(super) async fn denied_by_cursors(
        &mut self,
        analysis: &Arc<Analysis>,
        resolved: &mut Rc<Resolved>,
    ) -> Result<Option<Arc<Denial>>, SessionError> {
        if !resolved.effects.fetches {
            return Ok(None);
        }
        let denial = self.reconsider_cursors().await?;
        *resolved = self.meaning(analysis).await?;
        Ok(denial)
    }

    /// Why no cursor may be read: the policy has changed since one was opened,
    /// and does not permit its query.
    async fn reconsider_cursors(&mut self) -> Result<Option<Arc<Denial>>, SessionError> {
        self.follow_settings()?;
        let settings = self.settings.clone();
        let is_old = |bound: &&mut Bound| !Arc::ptr_eq(&bound.settings, &settings);
        let cursors = &mut self.cursors;
        if let Some(forgotten) = &cursors.forgotten
            && !Arc::ptr_eq(forgotten, &settings)
        {
            return Ok(Some(Arc::new(forgotten_cursor())));
        }
        let opened = cursors.declared.iter_mut().chain(self.bound.values_mut());
        let old: Vec<Arc<Analysis>> = opened
            .filter(is_old)
            .map(|bound| bound.analysis.clone())
            .collect();
        for analysis in old {
            let resolved = self.meaning(&analysis).await?;
            match self.judge.says_of(&resolved.statement) {
                Verdict::Allow => {}
                Verdict::Deny(denial) | Verdict::Hold(denial) => return Ok(Some(denial)),
                // Only what is executed is masked, not what SQL fetches.
                Verdict::Mask(_) => return Ok(Some(Arc::new(unmaskable()))),
            }
        }
        let opened = self.cursors.declared.iter_mut();
        for bound in opened.chain(self.bound.values_mut()).filter(is_old) {
            bound.settings = settings.clone();
        }
        Ok(None)
    }
}

fn forgotten_cursor() -> Denial {
    Denial {
        message: "lockgate: refused: FETCH after a change of the policy, in a session that has declared more cursors than are remembered".into(),
        hint: "connect again and declare the cursor anew".into(),
        policies: Vec::new(),
        access: None,
    }
}
