//! An observer that remembers what it is told.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::http::{ErrorCode, Observer, RequestFacts, Route, TransferFacts, TransferStatus};

/// A request as observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) request_id: String,
    pub(super) route: Option<Route>,
    pub(super) status: u16,
    pub(super) code: Option<ErrorCode>,
    pub(super) has_txn_id: bool,
    pub(super) replayed: bool,
}

/// A transfer of a batch call as observed.
pub(super) type SeenTransfer = (usize, TransferStatus, Option<ErrorCode>);

/// Remembers what it is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
    transfers: Arc<Mutex<Vec<SeenTransfer>>>,
    pub(super) news: Arc<Notify>,
}

impl Watch {
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn transfers(&self) -> Vec<SeenTransfer> {
        self.transfers.lock().unwrap().clone()
    }
}

impl Observer for Watch {
    fn finished(&self, facts: &RequestFacts<'_>) {
        assert!(facts.client.ip().is_loopback());
        self.seen.lock().unwrap().push(Seen {
            request_id: facts.request_id.to_owned(),
            route: facts.route,
            status: facts.status.as_u16(),
            code: facts.code,
            has_txn_id: facts.txn_id.is_some(),
            replayed: facts.replayed,
        });
        self.news.notify_one();
    }

    fn wants_transfers(&self) -> bool {
        true
    }

    fn transfer_finished(&self, facts: &TransferFacts<'_>) {
        let seen = (facts.index, facts.status, facts.code);
        self.transfers.lock().unwrap().push(seen);
    }
}
