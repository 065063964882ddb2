//! Compiler errors for mistakes in `#[event(..)]` and `derive(FromRef)`.

#[test]
fn every_mistake_is_shown_where_it_is() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
