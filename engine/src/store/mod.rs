//! The only room that speaks SQL.

pub mod pool;
pub mod read;
