//! Accounts as sent: to be opened, to be changed.

use hashbrown::HashSet;

use super::super::json;
use super::super::problem::Fallible;
use super::field;
use crate::domain::account::MinBalance;
use crate::domain::{AccountChange, AccountId, AccountStatus};
use crate::store::read::NewAccount;

/// In one call; the body's own limit allows about as many.
pub(in crate::http) const ACCOUNTS_MAX: usize = 1000;

/// Whether one account or a list was sent; the answer has the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Shape {
    One,
    List,
}

/// The body of `POST /accounts`.
pub(in crate::http) fn open(text: &str) -> Fallible<(Vec<NewAccount>, Shape)> {
    if !text.trim_ascii_start().starts_with('[') {
        return Ok((vec![account(text)?], Shape::One));
    }
    let count = || field::bad_field("accounts", "the list must have 1 to 1000 accounts");
    let items = json::list(text, ACCOUNTS_MAX)
        .map_err(field::not_json)?
        .filter(|items| !items.is_empty())
        .ok_or_else(count)?;
    let mut seen = HashSet::new();
    let mut accounts = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let account = account(item).map_err(|problem| problem.at(index))?;
        if !seen.insert(account.id) {
            let advice = "the list has this id twice";
            return Err(field::bad_field("account_id", advice).at(index));
        }
        accounts.push(account);
    }
    Ok((accounts, Shape::List))
}

fn account(text: &str) -> Fallible<NewAccount> {
    let (mut id, mut currency, mut min_balance) = (None, None, None);
    let (mut name, mut owner) = (None, None);
    for part in &field::object(text)? {
        let place = match &*part.name {
            "account_id" => &mut id,
            "currency" => &mut currency,
            "min_balance" => &mut min_balance,
            "name" => &mut name,
            "owner" => &mut owner,
            _ => return Err(field::unknown(part)),
        };
        field::take(place, part)?;
    }
    let text = |name: &'static str, raw: Option<&str>| match raw {
        Some(raw) => field::nullable_text(name, raw),
        None => Ok(None),
    };
    Ok(NewAccount {
        id: field::account_id("account_id", id)?,
        currency: field::currency(currency.ok_or_else(|| field::missing("currency"))?)?,
        // No limit is dangerous, so it must be written out as null.
        min_balance: match min_balance {
            Some(raw) => field::min_balance(raw)?,
            None => MinBalance::AtLeast(rust_decimal::Decimal::ZERO),
        },
        name: text("name", name)?,
        owner: text("owner", owner)?,
    })
}

/// The body of `PATCH /accounts/{id}`.
pub(in crate::http) fn change(text: &str, account_id: AccountId) -> Fallible<AccountChange> {
    let (mut status, mut min_balance, mut name) = (None, None, None);
    for part in &field::object(text)? {
        let place = match &*part.name {
            "status" => &mut status,
            "min_balance" => &mut min_balance,
            "name" => &mut name,
            _ => return Err(field::unknown(part)),
        };
        field::take(place, part)?;
    }
    if status.is_none() && min_balance.is_none() && name.is_none() {
        return Err(field::missing("status, min_balance or name"));
    }
    let word = |raw: &str| {
        let word = json::text(raw).unwrap_or_default();
        let advice = "it must be \"open\", \"frozen\" or \"closed\"";
        AccountStatus::parse(&word).ok_or_else(|| field::bad_field("status", advice))
    };
    Ok(AccountChange {
        account_id,
        status: status.map(word).transpose()?,
        min_balance: min_balance.map(field::min_balance).transpose()?,
        name: name
            .map(|raw| field::nullable_text("name", raw))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::code::ErrorCode;
    use super::*;

    #[test]
    fn one_account_or_a_list() {
        let (accounts, shape) = open(r#" {"account_id":1,"currency":"USD"}"#).unwrap();
        assert_eq!(shape, Shape::One);
        assert_eq!(
            accounts,
            [NewAccount {
                id: AccountId::new(1).unwrap(),
                currency: crate::domain::CurrencyCode::parse("USD").unwrap(),
                min_balance: MinBalance::AtLeast(rust_decimal::Decimal::ZERO),
                name: None,
                owner: None,
            }]
        );
        let body = r#" [{"account_id":1,"currency":"USD","min_balance":null,"name":"n","owner":"o"},
                        {"account_id":2,"currency":"JPY","min_balance":-5,"name":null}]"#;
        let (accounts, shape) = open(body).unwrap();
        assert_eq!((accounts.len(), shape), (2, Shape::List));
        assert_eq!(accounts[0].min_balance, MinBalance::Unlimited);
        assert_eq!(accounts[0].owner.as_deref(), Some("o"));
    }

    #[track_caller]
    fn check_open(body: &str, code: ErrorCode, field: Option<&str>, index: Option<usize>) {
        let problem = open(body).unwrap_err();
        let found = (problem.code, problem.field.as_deref(), problem.index);
        assert_eq!(found, (code, field, index), "{body}");
    }

    #[test]
    fn the_form_of_an_account_is_checked() {
        use ErrorCode::{InvalidAccount, InvalidAmount, InvalidJson, InvalidParameter};
        let good = r#"{"account_id":1,"currency":"USD"}"#;
        check_open("[]", InvalidParameter, Some("accounts"), None);
        check_open("[1]", InvalidJson, None, Some(0));
        check_open("7", InvalidJson, None, None);
        check_open("[", InvalidJson, None, None);
        check_open("{}", InvalidAccount, Some("account_id"), None);
        check_open(
            r#"{"account_id":1}"#,
            InvalidParameter,
            Some("currency"),
            None,
        );
        let twice = format!("[{good},{good}]");
        check_open(&twice, InvalidParameter, Some("account_id"), Some(1));
        let with = |more: &str| format!(r#"{{"account_id":1,"currency":"USD",{more}}}"#);
        check_open(
            &with(r#""balance":1"#),
            ErrorCode::UnknownField,
            Some("balance"),
            None,
        );
        check_open(
            &with(r#""min_balance":"x""#),
            InvalidAmount,
            Some("min_balance"),
            None,
        );
        check_open(&with(r#""name":1"#), InvalidParameter, Some("name"), None);
        check_open(
            &with(r#""currency":"USD""#),
            InvalidJson,
            Some("currency"),
            None,
        );
        let many = |count: usize| {
            let item = |id| format!(r#"{{"account_id":{id},"currency":"USD"}}"#);
            format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(","))
        };
        assert_eq!(open(&many(ACCOUNTS_MAX)).unwrap().0.len(), ACCOUNTS_MAX);
        check_open(
            &many(ACCOUNTS_MAX + 1),
            InvalidParameter,
            Some("accounts"),
            None,
        );
    }

    #[test]
    fn a_change_says_what_it_changes() {
        let id = AccountId::new(7).unwrap();
        let all = r#"{"status":"frozen","min_balance":null,"name":null}"#;
        assert_eq!(
            change(all, id).unwrap(),
            AccountChange {
                account_id: id,
                status: Some(AccountStatus::Frozen),
                min_balance: Some(MinBalance::Unlimited),
                name: Some(None),
            }
        );
        for (body, code) in [
            ("{}", ErrorCode::InvalidParameter),
            (r#"{"status":"Open"}"#, ErrorCode::InvalidParameter),
            (r#"{"status":null}"#, ErrorCode::InvalidParameter),
            (r#"{"owner":"x"}"#, ErrorCode::UnknownField),
            (r#"{"min_balance":true}"#, ErrorCode::InvalidAmount),
            (r#"{"name":"a","name":"a"}"#, ErrorCode::InvalidJson),
        ] {
            assert_eq!(change(body, id).unwrap_err().code, code, "{body}");
        }
    }
}
