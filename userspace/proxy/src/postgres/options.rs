//! Settings that come with the startup message. They are what SET is, before
//! there is a session, and are decided as that.

use lockgate_wire_postgres::StartupMessage;

/// Parameters of the startup message that are no settings, or that lockgate
/// sets itself or follows in how it reads texts.
const NO_SETTINGS: &[&str] = &[
    "user",
    "database",
    "replication",
    "options",
    "client_encoding",
    "standard_conforming_strings",
];

/// What cannot be told apart in `options`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotSettings(pub(super) String);

/// The settings of `message` as statements; empty if there are none.
///
/// `options` is split as the server splits it (`pg_split_opts`): at blanks, a
/// backslash takes the next character as it is. Of a server's switches, `-c`
/// and `--` set something; every other one is refused.
pub(super) fn as_statements(message: &StartupMessage) -> Result<String, NotSettings> {
    let mut settings: Vec<(String, String)> = message
        .parameters()
        .iter()
        .filter(|(name, _)| !NO_SETTINGS.contains(&name.as_str()) && !name.starts_with("_pq_."))
        .cloned()
        .collect();
    if let Some(options) = message.get("options") {
        settings.extend(of_options(options)?);
    }
    Ok(settings
        .iter()
        .map(|(name, value)| {
            let (name, value) = (name.replace('"', "\"\""), value.replace('\'', "''"));
            format!("SET \"{name}\" TO '{value}';")
        })
        .collect())
}

fn of_options(options: &str) -> Result<Vec<(String, String)>, NotSettings> {
    let mut settings = Vec::new();
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") if word == "-c" => words.next().unwrap_or_default(),
            Some(setting) => setting.to_owned(),
            None => return Err(NotSettings(word)),
        };
        match setting.split_once('=') {
            // The server reads a hyphen in a name as an underscore.
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => return Err(NotSettings(word)),
        }
    }
    Ok(settings)
}

fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::{NotSettings, of_options};

    fn read(options: &str) -> Result<Vec<(String, String)>, NotSettings> {
        of_options(options)
    }

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let expected = |pairs: &[(&str, &str)]| {
            Ok(pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect::<Vec<_>>())
        };
        assert_eq!(read("-c role=owner"), expected(&[("role", "owner")]));
        assert_eq!(read("-crole=owner"), expected(&[("role", "owner")]));
        assert_eq!(
            read(" --search-path=a,b\t"),
            expected(&[("search_path", "a,b")])
        );
        assert_eq!(
            read(r"-c search_path=a,\ b -c x=\\"),
            expected(&[("search_path", "a, b"), ("x", "\\")])
        );
        assert_eq!(read(""), expected(&[]));
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for options in [
            "-O",
            "-f s",
            "role=owner",
            "-c",
            "-c role",
            "--",
            "-W 5",
            "-e",
        ] {
            assert!(read(options).is_err(), "{options}");
        }
    }
}
