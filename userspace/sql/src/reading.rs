/// The session's settings that change how a text is read. Part of the key of
/// every cached [`crate::Analysis`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Whether a backslash in `'…'` is an ordinary character.
    pub standard_conforming_strings: bool,
    /// Whether `client_encoding` is UTF8. In any other encoding only texts of
    /// pure ASCII are readable: a byte of a character may look like a quote.
    pub utf8: bool,
    /// Whether `server_encoding` is UTF8. In any other the server folds and cuts
    /// names otherwise than its grammar does here, so that only names of pure
    /// ASCII are readable.
    pub utf8_names: bool,
}

impl Reading {
    /// Takes in one of the server's ParameterStatus messages; those about
    /// other settings change nothing.
    pub fn follow(&mut self, name: &str, value: &str) {
        match name {
            "standard_conforming_strings" => self.standard_conforming_strings = value == "on",
            "client_encoding" => self.utf8 = value.eq_ignore_ascii_case("utf8"),
            "server_encoding" => self.utf8_names = value.eq_ignore_ascii_case("utf8"),
            _ => {}
        }
    }
}

impl Default for Reading {
    /// What lockgate sets up after login.
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
            utf8: true,
            utf8_names: true,
        }
    }
}
