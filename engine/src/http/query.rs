//! Query strings: parameters, filters, cursors.
//!
//! Never: ignores a parameter it does not know, for a filter that is not applied
//! shows rows that were not asked for.

use std::borrow::Cow;

use smallvec::SmallVec;
use uuid::Uuid;

use super::code::ErrorCode;
use super::ports::Freshness;
use super::problem::{Fallible, Problem};
use super::route::percent_decoded;
use super::time;
use super::wire::field;
use crate::domain::{AccountId, TransferId};
use crate::store::read::{HistoryQuery, ListedStatus, PageLimit};

/// The parameters of a request, decoded, each known and there at most once.
#[derive(Debug)]
struct Parameters<'a>(SmallVec<[(&'static str, Cow<'a, str>); 4]>);

impl<'a> Parameters<'a> {
    fn read(query: Option<&'a str>, known: &[&'static str]) -> Fallible<Self> {
        let mut found = SmallVec::<[(&'static str, Cow<'a, str>); 4]>::new();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let Some(known) = known.iter().find(|known| ***known == *name) else {
                let name: String = name.chars().take(64).collect();
                return Err(Problem::field(
                    ErrorCode::InvalidParameter,
                    name,
                    "The query parameter is not known here, so the list would not be what was \
                     asked for. Remove or correct it.",
                ));
            };
            if found.iter().any(|(name, _)| name == known) {
                return Err(bad(known, "it is there twice"));
            }
            found.push((known, value));
        }
        Ok(Self(found))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| &**value)
    }

    fn account(&self, name: &'static str) -> Fallible<Option<AccountId>> {
        self.get(name)
            .map(|text| field::account_id(name, Some(text)))
            .transpose()
    }

    fn time(&self, name: &'static str) -> Fallible<Option<u64>> {
        let advice = "it must be an RFC 3339 time, such as 2026-01-31T00:00:00Z, not before 1970";
        self.get(name)
            .map(|text| time::parse(text).ok_or_else(|| bad(name, advice)))
            .transpose()
    }

    fn text(&self, name: &'static str, chars_max: usize) -> Fallible<Option<String>> {
        self.get(name)
            .map(|text| field::check_text(name, text.into(), chars_max))
            .transpose()
    }

    fn limit(&self) -> Fallible<PageLimit> {
        let Some(text) = self.get("limit") else {
            return Ok(PageLimit::default());
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number
            .and_then(|rows| PageLimit::new(rows).ok())
            .ok_or_else(|| bad("limit", "it must be a whole number from 1 to 1000"))
    }
}

/// `+` is a space in a query, as forms write it.
fn decoded(text: &str) -> Fallible<Cow<'_, str>> {
    let percent = |text: &str| percent_decoded(text).map(Cow::into_owned);
    let decoded = if text.contains('+') {
        percent(&text.replace('+', " ")).map(Cow::Owned)
    } else {
        percent_decoded(text)
    };
    decoded.ok_or_else(|| {
        Problem::new(
            ErrorCode::InvalidParameter,
            "The query has broken percent-encoding, or encodes what is not UTF-8. Correct it.",
        )
    })
}

fn bad(name: &'static str, advice: &str) -> Box<Problem> {
    Problem::field(
        ErrorCode::InvalidParameter,
        name,
        format!("{name} cannot be used: {advice}."),
    )
}

/// A question at `GET /transactions`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HistoryQuestion {
    /// A list.
    List(Box<HistoryQuery>),
    /// What became of that key.
    Fate(String),
}

const HISTORY: &[&str] = &[
    "account",
    "from",
    "to",
    "status",
    "since",
    "until",
    "category",
    "reference",
    "idempotency_key",
    "limit",
    "cursor",
];

/// Reads the query of `GET /transactions`.
pub(super) fn history(query: Option<&str>) -> Fallible<HistoryQuestion> {
    let parameters = Parameters::read(query, HISTORY)?;
    if let Some(key) = parameters.get("idempotency_key") {
        if 1 < parameters.0.len() {
            return Err(bad(
                "idempotency_key",
                "it names one request, so no other parameter goes with it",
            ));
        }
        field::check_key(key)?;
        return Ok(HistoryQuestion::Fate(key.to_owned()));
    }
    let query = HistoryQuery {
        account: parameters.account("account")?,
        debit: parameters.account("from")?,
        credit: parameters.account("to")?,
        direction: None,
        status: match parameters.get("status") {
            None | Some("completed") => ListedStatus::Completed,
            Some("rejected") => ListedStatus::Rejected,
            Some(_) => return Err(bad("status", "it must be completed or rejected")),
        },
        category: parameters.text("category", field::CATEGORY_CHARS_MAX)?,
        reference: parameters.text("reference", field::TEXT_CHARS_MAX)?,
        since_ms: parameters.time("since")?,
        until_ms: parameters.time("until")?,
        limit: parameters.limit()?,
        cursor: parameters
            .get("cursor")
            .map(|text| cursor_of(text, TRANSFER_CURSOR).map(TransferId::from_uuid))
            .transpose()?,
    };
    if query.account.is_none() {
        let filters = [
            ("category", query.category.is_some()),
            ("reference", query.reference.is_some()),
        ];
        if let Some((name, _)) = filters.into_iter().find(|(_, given)| *given) {
            return Err(bad(
                name,
                "it filters within an account, so give account= too",
            ));
        }
    }
    Ok(HistoryQuestion::List(Box::new(query)))
}

/// Reads the query of `GET /accounts`.
pub(super) fn accounts(query: Option<&str>) -> Fallible<(Option<AccountId>, PageLimit)> {
    let parameters = Parameters::read(query, &["limit", "cursor"])?;
    let after = parameters.get("cursor").map(|text| {
        let id = cursor_of(text, ACCOUNT_CURSOR)?;
        let id = i64::try_from(id.as_u128()).ok();
        id.and_then(|id| AccountId::new(id).ok())
            .ok_or_else(bad_cursor)
    });
    Ok((after.transpose()?, parameters.limit()?))
}

/// Reads the query of `GET /balance/{id}`.
pub(super) fn balance(query: Option<&str>) -> Fallible<Freshness> {
    let parameters = Parameters::read(query, &["consistent"])?;
    match parameters.get("consistent") {
        None | Some("false") => Ok(Freshness::Cached),
        Some("true") => Ok(Freshness::Consistent),
        Some(_) => Err(bad("consistent", "it must be true or false")),
    }
}

/// For routes without parameters.
pub(super) fn none(query: Option<&str>) -> Fallible<()> {
    Parameters::read(query, &[]).map(drop)
}

const TRANSFER_CURSOR: char = 't';
const ACCOUNT_CURSOR: char = 'a';

/// Opaque to clients: a letter for the list it belongs to, and an id in hex.
pub(super) fn transfer_cursor(id: TransferId) -> String {
    format!("{TRANSFER_CURSOR}{}", id.uuid().simple())
}

/// As [`transfer_cursor`].
pub(super) fn account_cursor(id: AccountId) -> String {
    format!("{ACCOUNT_CURSOR}{:032x}", id.get())
}

fn cursor_of(text: &str, list: char) -> Fallible<Uuid> {
    text.strip_prefix(list)
        .filter(|hex| hex.len() == 32)
        .and_then(|hex| Uuid::try_parse(hex).ok())
        .ok_or_else(bad_cursor)
}

pub(super) fn bad_cursor() -> Box<Problem> {
    Problem::field(
        ErrorCode::InvalidCursor,
        "cursor",
        "The cursor is not one that this list gave. Use X-Next-Cursor of the page before, with \
         the same other parameters, or start without a cursor.",
    )
}

/// The same query with another cursor, for the `Link` header: pages follow each
/// other with the same filters.
pub(super) fn next_page(path: &str, query: Option<&str>, cursor: &str) -> String {
    let kept = query.unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && percent_decoded(name).as_deref() != Some("cursor")
    });
    let mut link = format!("<{path}?");
    for pair in kept {
        link.push_str(pair);
        link.push('&');
    }
    link.push_str("cursor=");
    link.push_str(cursor);
    link.push_str(">; rel=\"next\"");
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> HistoryQuery {
        match history(Some(query)).unwrap() {
            HistoryQuestion::List(query) => *query,
            HistoryQuestion::Fate(key) => panic!("fate of {key}"),
        }
    }

    #[test]
    fn every_filter_is_read() {
        assert_eq!(list(""), HistoryQuery::default());
        let id = |id| AccountId::new(id).ok();
        let all = "account=1&from=2&to=%33&status=rejected&since=1970-01-01T00:00:01Z\
                   &until=1970-01-01T01:00:00%2B01:00&category=a+b&reference=%C3%BC&limit=7\
                   &cursor=t00000000000000000000000000000005";
        assert_eq!(
            list(all),
            HistoryQuery {
                account: id(1),
                debit: id(2),
                credit: id(3),
                direction: None,
                status: ListedStatus::Rejected,
                category: Some("a b".to_owned()),
                reference: Some("ü".to_owned()),
                since_ms: Some(1000),
                until_ms: Some(0),
                limit: PageLimit::new(7).unwrap(),
                cursor: Some(TransferId::from_uuid(Uuid::from_u128(5))),
            }
        );
        assert_eq!(
            history(Some("idempotency_key=k%21")).unwrap(),
            HistoryQuestion::Fate("k!".to_owned())
        );
    }

    #[test]
    fn a_query_that_cannot_be_read_is_refused() {
        use ErrorCode::{InvalidAccount, InvalidCursor, InvalidIdempotencyKey, InvalidParameter};
        for (query, code, field) in [
            ("x=1", InvalidParameter, Some("x")),
            ("account=1&account=1", InvalidParameter, Some("account")),
            ("account=x", InvalidAccount, Some("account")),
            ("account=", InvalidAccount, Some("account")),
            ("from=-1", InvalidAccount, Some("from")),
            ("to=9007199254740992", InvalidAccount, Some("to")),
            ("status=failed", InvalidParameter, Some("status")),
            ("since=yesterday", InvalidParameter, Some("since")),
            ("until=1", InvalidParameter, Some("until")),
            ("limit=0", InvalidParameter, Some("limit")),
            ("limit=1001", InvalidParameter, Some("limit")),
            ("limit=%2B5", InvalidParameter, Some("limit")),
            ("limit=99999999999", InvalidParameter, Some("limit")),
            ("category=x", InvalidParameter, Some("category")),
            ("reference=x&from=1", InvalidParameter, Some("reference")),
            (
                "account=1&reference=%00",
                InvalidParameter,
                Some("reference"),
            ),
            ("account=%zz", InvalidParameter, None),
            ("account=%ff", InvalidParameter, None),
            ("cursor=5", InvalidCursor, Some("cursor")),
            ("cursor=", InvalidCursor, Some("cursor")),
            (
                "cursor=a00000000000000000000000000000005",
                InvalidCursor,
                Some("cursor"),
            ),
            ("idempotency_key=", InvalidIdempotencyKey, None),
            ("idempotency_key=a%20b", InvalidIdempotencyKey, None),
            (
                "idempotency_key=k&limit=1",
                InvalidParameter,
                Some("idempotency_key"),
            ),
        ] {
            let problem = history(Some(query)).unwrap_err();
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (code, field),
                "{query}"
            );
        }
        assert!(history(Some("limit=1000")).is_ok());
        assert_eq!(none(Some("a=1")).unwrap_err().code, InvalidParameter);
        assert!(none(Some("")).is_ok());
        assert_eq!(
            balance(Some("consistent=true")).unwrap(),
            Freshness::Consistent
        );
        assert_eq!(
            balance(Some("consistent=1")).unwrap_err().code,
            InvalidParameter
        );
    }

    #[test]
    fn cursors_lead_back_to_where_they_were_made() {
        let id = TransferId::from_uuid(Uuid::from_u128(u128::MAX));
        let query = format!("cursor={}", transfer_cursor(id));
        assert_eq!(list(&query).cursor, Some(id));
        let query = format!("cursor={}", account_cursor(AccountId::MAX));
        assert_eq!(accounts(Some(&query)).unwrap().0, Some(AccountId::MAX));
        let past = "cursor=a00000000000000000020000000000000";
        assert_eq!(
            accounts(Some(past)).unwrap_err().code,
            ErrorCode::InvalidCursor
        );
    }

    #[test]
    fn the_next_page_keeps_the_filters_and_replaces_the_cursor() {
        let link = next_page("/transactions", Some("account=1&cursor=t0&&limit=2"), "t1");
        assert_eq!(
            link,
            "</transactions?account=1&limit=2&cursor=t1>; rel=\"next\""
        );
        assert_eq!(
            next_page("/accounts", None, "a1"),
            "</accounts?cursor=a1>; rel=\"next\""
        );
    }
}
