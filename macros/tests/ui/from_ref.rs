//! Mistakes in `derive(FromRef)`.

use tidings_macros::FromRef;

#[derive(FromRef)]
enum Either {
    One(u32),
}

#[derive(FromRef)]
struct Generic<T> {
    part: T,
}

#[derive(FromRef)]
struct Nothing;

#[derive(FromRef)]
struct Misspelt {
    #[from_ref(skipped)]
    part: u32,
}

#[derive(FromRef)]
#[from_ref(krate = "tidings")]
struct Unknown {
    part: u32,
}

fn main() {}
