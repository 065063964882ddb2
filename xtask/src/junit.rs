//! Reads the file that cargo-nextest writes about a run, in JUnit's format, with the output of each test.
//!
//! A harness of ours says "ignored" only when the test runs, as it is then that a server turns out to be missing. Nextest
//! counts such a test as passed; here it is counted as not run, with its reason.

use crate::report::Report;

/// Counts all test cases of `xml` in `report`.
pub(crate) fn read(xml: &str, report: &mut Report) {
    // Nextest puts no test case into another, and escapes what tests print.
    for case in xml.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or(case);
        let (out, err) = (element(case, "system-out"), element(case, "system-err"));
        if case.contains("<failure") || case.contains("<error") {
            let name = format!("{} {}", attribute(case, "classname"), attribute(case, "name"));
            let cause = element(case, "failure");
            report.fail(&name, &[cause, out, err].join("\n"));
        } else if let Some(reason) = ignored(&out) {
            report.ignore(&reason);
        } else {
            report.pass();
        }
    }
}

/// Why the only test of a program did not run; `None` if it did.
fn ignored(out: &str) -> Option<String> {
    let is_ignored = |line: &str| line.starts_with("test result: ok. 0 passed;") && line.contains("; 1 ignored;");
    out.lines().find(|line| is_ignored(line))?;
    // In the same line there may be something that the test printed.
    let (_, verdict) =
        out.lines().filter(|line| line.starts_with("test ")).find_map(|line| line.split_once(" ... "))?;
    Some(verdict.split_once("ignored").map_or("", |(_, reason)| reason).to_owned())
}

/// The text of the first element of this name, empty if there is none.
fn element(case: &str, name: &str) -> String {
    let after = case.split_once(&format!("<{name}")).and_then(|(_, rest)| rest.split_once('>'));
    let inner = after.filter(|(attributes, _)| !attributes.ends_with('/')).and_then(|(_, rest)| {
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        Some(unescaped(text))
    });
    inner.unwrap_or_default()
}

fn attribute(case: &str, name: &str) -> String {
    let after = case.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
    after.map(|(value, _)| unescaped(value)).unwrap_or_default()
}

fn unescaped(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#10;", "\n"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_says_it_is_ignored_did_not_pass() {
        let xml = r#"<?xml version="1.0"?>
<testsuites><testsuite name="a::b">
<testcase name="runs" classname="a::b"><system-out>
running 1 test
test runs ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.1s
</system-out></testcase>
<testcase name="quiet" classname="a::c"></testcase>
<testcase name="k1" classname="a::b"><system-out>
running 1 test
test k1 ... said in between, ignored, no &quot;broker&quot; &amp; no Java

test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.1s
</system-out></testcase>
<testcase name="k3" classname="a::b"><system-out>
test a_record_is_ignored   ... ignored (soak)
test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.1s
</system-out></testcase>
<testcase name="k2&lt;u8&gt;" classname="a::b"><failure message="m" type="test failure">left: 1</failure>
<system-out>test k2 ... FAILED</system-out><system-err></system-err></testcase>
</testsuite></testsuites>"#;
        let mut report = Report::default();
        read(xml, &mut report);
        assert_eq!(
            report.text(&[]),
            "2 tests passed, 1 failed\n  failed: a::b k2<u8>\n    ---- a::b k2<u8> ----\n    left: 1\n    \
             test k2 ... FAILED\n  not run, 1 tests: no \"broker\" & no Java\n  \
             not run, 1 tests: soak"
        );
    }
}
