use std::fmt::Write;
use std::io::IsTerminal;

use lockgate_config::{Finding, Severity};
use owo_colors::{OwoColorize, Style};

/// Findings for people, on standard error: each with the line it is about,
/// as compilers show them.
pub(crate) fn print_findings(findings: &[Finding]) {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for finding in findings {
        let text = std::fs::read_to_string(&finding.file).unwrap_or_default();
        eprint!("{}", render(finding, &text, coloured));
    }
    let count = |severity: Severity| {
        let of_it = findings.iter().filter(|found| found.severity == severity);
        match of_it.count() {
            0 => None,
            1 => Some(format!("1 {}", severity.as_str())),
            many => Some(format!("{many} {}s", severity.as_str())),
        }
    };
    let counts = [count(Severity::Error), count(Severity::Warning)];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    if !counts.is_empty() {
        eprintln!("{}", counts.join(", "));
    }
}

/// `text` is that of the file.
fn render(finding: &Finding, text: &str, coloured: bool) -> String {
    let paint = |style: Style| if coloured { style } else { Style::new() };
    let severity = match finding.severity {
        Severity::Error => paint(Style::new().red().bold()),
        Severity::Warning => paint(Style::new().yellow().bold()),
    };
    let faint = paint(Style::new().blue().bold());
    let number = finding.line.map(|line| line.to_string());
    let margin = " ".repeat(number.as_ref().map_or(1, String::len));
    let mut shown = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = shown.write_fmt(line);
        shown.push('\n');
    };
    line(format_args!(
        "{}: {}",
        finding.severity.as_str().style(severity),
        finding.message.style(paint(Style::new().bold()))
    ));
    let mut place = finding.file.clone();
    for number in [finding.line, finding.column].into_iter().flatten() {
        place.push_str(&format!(":{number}"));
    }
    line(format_args!("{margin}{} {place}", "-->".style(faint)));
    let quoted = finding
        .line
        .and_then(|number| text.lines().nth(number as usize - 1));
    let bar = "|".style(faint);
    if let (Some(number), Some(quoted)) = (&number, quoted) {
        line(format_args!("{margin} {bar}"));
        line(format_args!("{} {bar} {quoted}", number.style(faint)));
        if let Some(column) = finding.column {
            // Tabs stay tabs, so that the mark stands below its place.
            let before = quoted.chars().take(column as usize - 1);
            let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
            let rest: String = quoted.chars().skip(column as usize - 1).collect();
            let mark = "^".repeat(width(&rest));
            line(format_args!(
                "{margin} {bar} {indent}{}",
                mark.style(severity)
            ));
        }
    }
    if let Some(fix) = &finding.fix {
        line(format_args!(
            "{margin} {} {}: {fix}",
            "=".style(faint),
            "help".style(paint(Style::new().bold()))
        ));
    }
    shown.push('\n');
    shown
}

/// How much of a line its first value or key takes, in characters.
fn width(rest: &str) -> usize {
    let mut characters = rest.chars();
    match characters.next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = characters.take_while(|c| *c != quote).count();
            (inner + 2).min(rest.chars().count())
        }
        _ => rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || "_-.".contains(*c))
            .count()
            .max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(line: Option<u32>, column: Option<u32>, fix: Option<&str>) -> Finding {
        Finding {
            severity: Severity::Error,
            file: "/etc/lockgate/lockgate.toml".into(),
            line,
            column,
            message: "there is no workload `nightl`".into(),
            fix: fix.map(Into::into),
        }
    }

    #[test]
    fn the_place_is_marked_below_its_line() {
        let text = "[[target]]\n\tx = [{ workload = \"nightl\" }]\n";
        let shown = render(
            &finding(Some(2), Some(20), Some("did you mean `nightly`?")),
            text,
            false,
        );
        assert_eq!(
            shown,
            "error: there is no workload `nightl`\n \
             --> /etc/lockgate/lockgate.toml:2:20\n  \
             |\n\
             2 | \tx = [{ workload = \"nightl\" }]\n  \
             | \t                  ^^^^^^^^\n  \
             = help: did you mean `nightly`?\n\n"
        );
    }

    #[test]
    fn without_a_place_the_file_stands_alone() {
        assert_eq!(
            render(&finding(None, None, None), "text\n", false),
            "error: there is no workload `nightl`\n --> /etc/lockgate/lockgate.toml\n\n"
        );
        // A file that has become shorter meanwhile.
        let shown = render(&finding(Some(9), Some(9), None), "text\n", true);
        assert!(shown.contains("lockgate.toml:9:9") && shown.contains("\u{1b}["));
    }

    #[test]
    fn colours_are_left_out_where_nobody_sees_them() {
        assert!(!render(&finding(Some(1), Some(1), Some("x")), "text", false).contains('\u{1b}'));
    }
}
