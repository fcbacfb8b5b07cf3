//! args → config → logger → run; nothing else.
fn main() {}
