//! Leno: a service mesh in one binary.

fn main() {}
