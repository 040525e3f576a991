//! The only room that speaks SQL.

pub mod link;
pub mod maintain;
pub mod migrate;
pub mod pool;
pub mod read;
pub mod verify;
