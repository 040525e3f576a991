//! The only room that speaks SQL.

pub mod link;
pub mod maintain;
pub mod migrate;
pub mod verify;
