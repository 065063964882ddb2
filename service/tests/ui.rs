//! Compiler errors for mistakes in handlers, and shapes of handlers that must compile.

#[test]
fn mistakes_are_told_in_our_words_and_other_shapes_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    cases.pass("tests/ui-pass/*.rs");
}
