//! The `engine` command.
#![forbid(unsafe_code)]

fn main() {}
