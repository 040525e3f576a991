//! What is asked of the engine or its database, whichever answers.
//!
//! Owns: the questions and the shape of the answers.
//! Never: judges.
//! Invariant: an answer has one list of rows for each question, in order.

use std::fmt;

use uuid::Uuid;

use crate::journal::Amount;

/// What is there about one transfer?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) key: Option<String>,
    /// The id that an answer named: looked for too unless the key leads to it.
    pub(crate) id: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    /// Money moved.
    Transfer,
    /// A refusal that is kept with its key.
    Rejection,
}

/// What led to a row: one that its id alone leads to is not safe from a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundBy {
    Key,
    Id,
}

/// One row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) kind: RowKind,
    pub(crate) found_by: FoundBy,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) amount: Amount,
}

/// Where this run's transfers are among the ids, and which accounts they use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The lowest and highest id acknowledged: the engine's clock, not ours.
    pub(crate) ids: Option<(Uuid, Uuid)>,
    pub(crate) accounts_first: u64,
    pub(crate) accounts_last: u64,
}

/// What is wrong with the ledger as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    /// Currencies whose balances do not add up to zero, and to what they do.
    pub(crate) unbalanced: Vec<(String, String)>,
    /// Accounts below their limit.
    pub(crate) overdrafts: u64,
    /// What only the database can tell.
    pub(crate) rows: Option<RowBooks>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowBooks {
    /// Accounts whose balance is not the sum of their transfers.
    pub(crate) balances_wrong: u64,
    /// Transfers that answer several keys: all but one of them is missing.
    pub(crate) answers_shared: u64,
    /// Transfers in the window that no key leads to.
    pub(crate) keyless: u64,
}

/// Who knows what became of a transfer.
pub(crate) trait Ledger {
    fn look_up(&mut self, questions: &[Question]) -> Result<Vec<Vec<Row>>, AskError>;
    fn books(&mut self, window: &Window) -> Result<Books, AskError>;
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum AskError {
    /// The engine did not answer although asked several times.
    Engine {
        request: String,
        cause: String,
    },
    Database(tokio_postgres::Error),
    /// An answer that this version cannot read.
    Unreadable {
        request: String,
        problem: String,
    },
    Io(std::io::Error),
    Usage(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine { request, cause } => {
                write!(f, "{request}: {cause}; verify again when the engine is up")
            }
            Self::Database(error) => {
                write!(f, "--database-url: {error}")?;
                std::error::Error::source(error).map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Unreadable { request, problem } => write!(f, "{request}: {problem}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Usage(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for AskError {}

impl From<tokio_postgres::Error> for AskError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}
