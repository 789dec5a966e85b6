//! What a request on a session channel does (RFC 4254 section 6.5). No bytes
//! are read or written here.

use lockgate_command::{Access, Command, Refusal, Resource, Statement, TextId, Verb};
use std::sync::Arc;

/// Longest command line in bytes; Linux passes no longer single argument to
/// the shell that runs it (MAX_ARG_STRLEN).
pub const COMMAND_BYTES: usize = 128 * 1024;

/// A request that starts something on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// `exec`: one command line, for the user's shell to read.
    Exec(&'a [u8]),
    /// `shell`: whatever is typed from now on.
    Shell,
    /// `subsystem`, such as sftp.
    Subsystem(&'a str),
}

/// The command, ready to be judged.
pub fn command(start: Start<'_>) -> Command {
    let text = match start {
        Start::Exec(line) => line,
        Start::Shell => b"",
        Start::Subsystem(name) => name.as_bytes(),
    };
    let text = TextId::of(text);
    let refusal = refusal(start);
    let accesses = match refusal {
        Some(_) => Vec::new(),
        None => vec![Access::new(Verb::Execute, Resource::target())],
    };
    Command {
        statement: Arc::new(Statement {
            accesses,
            shown: Vec::new(),
            outputs: None,
            beneath: Vec::new(),
            // Which words of a command line are secrets only its shell knows.
            shape: None,
            writes: true,
            refusal,
        }),
        text,
        digest: text.digest,
    }
}

fn refusal(start: Start<'_>) -> Option<Refusal> {
    let refuse = |construct: String| {
        Some(Refusal {
            construct,
            hint: "run a single command: ssh HOST COMMAND".into(),
        })
    };
    match start {
        Start::Exec([]) => refuse("an empty command".into()),
        Start::Exec(line) if line.len() > COMMAND_BYTES => {
            refuse(format!("a command over {COMMAND_BYTES} bytes"))
        }
        // The server would run what stands before it.
        Start::Exec(line) if line.contains(&0) => refuse("a command with a NUL byte".into()),
        Start::Exec(line) if std::str::from_utf8(line).is_err() => {
            refuse("a command that is not UTF-8".into())
        }
        Start::Exec(_) => None,
        Start::Shell => refuse("an interactive shell".into()),
        Start::Subsystem(_) => refuse("a subsystem".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_execute_on_the_target() {
        let command = command(Start::Exec(b"uname -a"));
        assert_eq!(command.statement.refusal, None);
        assert_eq!(
            command.statement.accesses,
            [Access::new(Verb::Execute, Resource::target())]
        );
        assert_eq!(command.digest, TextId::of(b"uname -a").digest);
        assert!(command.statement.writes);
    }

    #[test]
    fn what_is_no_single_command_is_refused_whatever_the_policy_says() {
        let long = vec![b'x'; COMMAND_BYTES + 1];
        for start in [
            Start::Exec(b""),
            Start::Exec(b"true\0; rm -rf /"),
            Start::Exec(b"\xff"),
            Start::Exec(&long),
            Start::Shell,
            Start::Subsystem("sftp"),
        ] {
            let statement = command(start).statement;
            assert!(statement.refusal.is_some(), "{start:?}");
            assert_eq!(statement.accesses, []);
        }
    }
}
