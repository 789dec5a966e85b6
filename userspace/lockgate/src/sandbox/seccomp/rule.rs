use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// Which calls of one system call are meant. Conditions look at arguments that
/// are numbers; what is behind a pointer cannot be seen by a filter.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// All.
    Always,
    /// The argument is one of these.
    Is(u8, &'static [u64]),
    /// The argument is this, and 32 bits wide.
    IsNow(u8, u32),
    /// The argument is not this, and 32 bits wide.
    IsNot(u8, u32),
    /// The argument, masked by the second number, is the third.
    Masked(u8, u64, u64),
    /// Both.
    Both((u8, u64, u64), (u8, u64, u64)),
}

impl When {
    /// As seccompiler has it: rules of which one must hold; none holds always.
    pub(super) fn rules(self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        use SeccompCmpArgLen::{Dword, Qword};
        let masked = |(argument, mask, value)| {
            SeccompCondition::new(argument, Qword, SeccompCmpOp::MaskedEq(mask), value)
        };
        match self {
            Self::Always => Ok(Vec::new()),
            Self::Is(argument, values) => values
                .iter()
                .map(|value| {
                    let same = SeccompCondition::new(argument, Qword, SeccompCmpOp::Eq, *value)?;
                    SeccompRule::new(vec![same])
                })
                .collect(),
            Self::IsNow(argument, value) => {
                let same =
                    SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, u64::from(value))?;
                Ok(vec![SeccompRule::new(vec![same])?])
            }
            Self::IsNot(argument, value) => {
                let other =
                    SeccompCondition::new(argument, Dword, SeccompCmpOp::Ne, u64::from(value))?;
                Ok(vec![SeccompRule::new(vec![other])?])
            }
            Self::Masked(argument, mask, value) => Ok(vec![SeccompRule::new(vec![masked((
                argument, mask, value,
            ))?])?]),
            Self::Both(first, second) => Ok(vec![SeccompRule::new(vec![
                masked(first)?,
                masked(second)?,
            ])?]),
        }
    }
}
