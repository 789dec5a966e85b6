//! How the demo looks.

use std::io::IsTerminal;

use lockgate_tests::Output;

/// Prints, and remembers what did not happen.
#[derive(Debug)]
pub struct Page {
    colours: bool,
    section: u32,
    failed: Vec<String>,
}

impl Page {
    pub fn new() -> Self {
        Self {
            colours: std::io::stdout().is_terminal(),
            section: 0,
            failed: Vec::new(),
        }
    }

    /// The next section.
    pub fn heading(&mut self, text: &str) {
        self.section += 1;
        println!(
            "\n{}\n",
            self.paint("1", &format!("{}. {text}", self.section))
        );
    }

    /// A sentence.
    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    /// A file's content.
    pub fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("    {line}");
        }
        println!();
    }

    /// A command line, and who runs it.
    pub fn command(&self, who: &str, line: &str) {
        println!("{} {line}", self.paint("36", &format!("{who} $")));
    }

    /// What a program said.
    pub fn output(&self, output: &Output) {
        self.text(&output.all());
    }

    /// What a server said.
    pub fn text(&self, text: &str) {
        println!("{}\n", text.trim_end());
    }

    /// What must have happened for the demo to be true.
    pub fn must(&mut self, what: &str, happened: bool) {
        let mark = if happened {
            self.paint("32", "✓")
        } else {
            self.paint("31", "✗")
        };
        println!("  {mark} {what}");
        if !happened {
            self.failed.push(format!("{}. {what}", self.section));
        }
    }

    /// What did not happen.
    pub fn failed(&self) -> Vec<String> {
        self.failed.clone()
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
