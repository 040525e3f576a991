//! Which route a method and a path name.
//!
//! Invariant: [`ROUTES`] is the whole list; the document at `/openapi.json` is
//! tested against it.

use std::borrow::Cow;

use hyper::Method;

use crate::admission::Refused;

/// A route, as the contract has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /transaction` and its alias.
    Transfer,
    /// `POST /transactions`.
    Transfers,
    /// `GET /transactions`.
    History,
    /// `GET /transactions/{id}`.
    Transaction,
    /// `POST /transactions/{id}/reversal`.
    Reversal,
    /// `GET /balance/{id}`.
    Balance,
    /// `POST /accounts`.
    OpenAccounts,
    /// `GET /accounts`.
    Accounts,
    /// `GET /accounts/{id}`.
    Account,
    /// `PATCH /accounts/{id}`.
    ChangeAccount,
    /// `GET /health`.
    Health,
    /// `GET /openapi.json`.
    OpenApi,
    /// `GET /docs`.
    Docs,
}

impl Route {
    /// Whether its answers may be long: lists, and one result for each of many items.
    #[must_use]
    pub const fn answers_at_length(self) -> bool {
        match self {
            Self::Transfers | Self::History | Self::OpenAccounts | Self::Accounts => true,
            Self::Transfer
            | Self::Transaction
            | Self::Reversal
            | Self::Balance
            | Self::Account
            | Self::ChangeAccount
            | Self::Health
            | Self::OpenApi
            | Self::Docs => false,
        }
    }

    /// Every route, for documents and metrics.
    pub const ALL: [Self; 13] = [
        Self::Transfer,
        Self::Transfers,
        Self::History,
        Self::Transaction,
        Self::Reversal,
        Self::Balance,
        Self::OpenAccounts,
        Self::Accounts,
        Self::Account,
        Self::ChangeAccount,
        Self::Health,
        Self::OpenApi,
        Self::Docs,
    ];

    /// What a request that was cut off at its deadline is told.
    pub(super) const fn too_late(self) -> Refused {
        match self {
            Self::Transfer
            | Self::Transfers
            | Self::Reversal
            | Self::OpenAccounts
            | Self::ChangeAccount => Refused::OutcomeUnknown,
            Self::History
            | Self::Transaction
            | Self::Balance
            | Self::Accounts
            | Self::Account
            | Self::Health
            | Self::OpenApi
            | Self::Docs => Refused::DeadlineExceeded,
        }
    }

    /// A bounded word for metrics and logs: the method and the path's template.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transfer => "POST /transaction",
            Self::Transfers => "POST /transactions",
            Self::History => "GET /transactions",
            Self::Transaction => "GET /transactions/{txn_id}",
            Self::Reversal => "POST /transactions/{txn_id}/reversal",
            Self::Balance => "GET /balance/{account_id}",
            Self::OpenAccounts => "POST /accounts",
            Self::Accounts => "GET /accounts",
            Self::Account => "GET /accounts/{account_id}",
            Self::ChangeAccount => "PATCH /accounts/{account_id}",
            Self::Health => "GET /health",
            Self::OpenApi => "GET /openapi.json",
            Self::Docs => "GET /docs",
        }
    }
}

/// One path and what its methods do.
struct Resource {
    /// Segments; `*` is a parameter.
    path: &'static [&'static str],
    methods: &'static [(Method, Route)],
    /// For the `Allow` header.
    allow: &'static str,
}

const ROUTES: &[Resource] = &[
    Resource {
        path: &["transaction"],
        methods: &[(Method::POST, Route::Transfer)],
        allow: "POST",
    },
    Resource {
        path: &["process_transaction"],
        methods: &[(Method::POST, Route::Transfer)],
        allow: "POST",
    },
    Resource {
        path: &["balance", "*"],
        methods: &[(Method::GET, Route::Balance)],
        allow: "GET, HEAD",
    },
    Resource {
        path: &["transactions"],
        methods: &[
            (Method::POST, Route::Transfers),
            (Method::GET, Route::History),
        ],
        allow: "GET, HEAD, POST",
    },
    Resource {
        path: &["transactions", "*"],
        methods: &[(Method::GET, Route::Transaction)],
        allow: "GET, HEAD",
    },
    Resource {
        path: &["transactions", "*", "reversal"],
        methods: &[(Method::POST, Route::Reversal)],
        allow: "POST",
    },
    Resource {
        path: &["accounts"],
        methods: &[
            (Method::POST, Route::OpenAccounts),
            (Method::GET, Route::Accounts),
        ],
        allow: "GET, HEAD, POST",
    },
    Resource {
        path: &["accounts", "*"],
        methods: &[
            (Method::GET, Route::Account),
            (Method::PATCH, Route::ChangeAccount),
        ],
        allow: "GET, HEAD, PATCH",
    },
    Resource {
        path: &["health"],
        methods: &[(Method::GET, Route::Health)],
        allow: "GET, HEAD",
    },
    Resource {
        path: &["openapi.json"],
        methods: &[(Method::GET, Route::OpenApi)],
        allow: "GET, HEAD",
    },
    Resource {
        path: &["docs"],
        methods: &[(Method::GET, Route::Docs)],
        allow: "GET, HEAD",
    },
];

/// What a path and method name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A route, with the text of its parameter if it has one.
    Route(Route, Option<&'a str>),
    /// A path without that method.
    MethodNotAllowed(&'static str),
    /// No such path.
    Nothing,
}

/// Looks a path up. HEAD is GET without the body, which the server leaves out.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    // The one route that must not wait for the rest of the list.
    if path == "/transaction" && *method == Method::POST {
        return Found::Route(Route::Transfer, None);
    }
    let Some(path) = path.strip_prefix('/') else {
        return Found::Nothing;
    };
    for resource in ROUTES {
        if let Some(parameter) = matches(resource.path, path) {
            let method = if *method == Method::HEAD {
                &Method::GET
            } else {
                method
            };
            let route = resource.methods.iter().find(|(known, _)| known == method);
            return match route {
                Some((_, route)) => Found::Route(*route, parameter),
                None => Found::MethodNotAllowed(resource.allow),
            };
        }
    }
    Found::Nothing
}

fn matches<'a>(template: &[&str], path: &'a str) -> Option<Option<&'a str>> {
    let mut parameter = None;
    let mut segments = path.split('/');
    for expected in template {
        let segment = segments.next()?;
        if *expected == "*" {
            if segment.is_empty() {
                return None;
            }
            parameter = Some(segment);
        } else if segment != *expected {
            return None;
        }
    }
    segments.next().is_none().then_some(parameter)
}

/// Undoes percent-encoding; `None` if it is broken or not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (high, after) = rest.split_first()?;
            let (low, after) = after.split_first()?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every (method, path template) of the router, for the document's test.
    pub(in crate::http) fn templates() -> Vec<(String, String)> {
        let mut templates = Vec::new();
        for resource in ROUTES {
            for (method, route) in resource.methods {
                let parameter = route.as_str().split(['{', '}']).nth(1).unwrap_or("");
                let path = resource
                    .path
                    .join("/")
                    .replace('*', &format!("{{{parameter}}}"));
                templates.push((method.to_string(), format!("/{path}")));
            }
        }
        templates
    }

    #[test]
    fn every_route_is_found_by_its_own_words() {
        for route in Route::ALL {
            let (method, path) = route.as_str().split_once(' ').unwrap();
            let method: Method = method.parse().unwrap();
            let path = path.replace("{txn_id}", "x").replace("{account_id}", "x");
            let parameter = path.contains("/x").then_some("x");
            assert_eq!(
                find(&method, &path),
                Found::Route(route, parameter),
                "{path}"
            );
        }
        let alias = find(&Method::POST, "/process_transaction");
        assert_eq!(alias, Found::Route(Route::Transfer, None));
        let head = find(&Method::HEAD, "/health");
        assert_eq!(head, Found::Route(Route::Health, None));
    }

    #[test]
    fn allow_lists_exactly_the_methods_of_a_path() {
        for resource in ROUTES {
            let mut methods: Vec<_> = resource.methods.iter().map(|(m, _)| m.as_str()).collect();
            if methods.contains(&"GET") {
                methods.push("HEAD");
            }
            methods.sort_unstable();
            assert_eq!(methods.join(", "), resource.allow);
        }
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        for path in [
            "",
            "/",
            "*",
            "/x",
            "/transaction/",
            "/transactions//reversal",
            "/balance/",
            "/balance/1/2",
            "/accounts/1/",
            "/Transaction",
            "//transaction",
        ] {
            assert_eq!(find(&Method::POST, path), Found::Nothing, "{path}");
        }
        let put = find(&Method::PUT, "/accounts");
        assert_eq!(put, Found::MethodNotAllowed("GET, HEAD, POST"));
        let get = find(&Method::GET, "/transaction");
        assert_eq!(get, Found::MethodNotAllowed("POST"));
    }

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        for (text, decoded) in [
            ("plain", Some("plain")),
            ("%31%c3%BC", Some("1ü")),
            ("a%2Fb", Some("a/b")),
            ("%", None),
            ("%1", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
        }
    }
}
