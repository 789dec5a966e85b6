//! What statements need, one line each; see `statements.txt`.

mod shop;

/// The lines of the file that are not as expected are printed as they should
/// be, so that a change can be read and judged.
#[test]
fn statements_need_what_is_written() {
    let analyser = shop::analyser();
    let tags = shop::tags();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in include_str!("statements.txt").lines() {
        let Some((text, expected)) = line.split_once(" => ") else {
            continue;
        };
        count += 1;
        let resolved = shop::meaning(
            &analyser,
            &text.replace("\\n", "\n"),
            shop::usual_path(),
            &tags,
        );
        let words = shop::words(&resolved);
        if words != expected {
            wrong.push(format!("{text} => {words}"));
        }
    }
    assert!(count > 300, "the file has only {count} statements");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
