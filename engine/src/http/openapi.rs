//! The contract as a document, for tools (`/openapi.json`) and people (`/docs`).
//!
//! Kept by hand, so that it says what a reader needs; the tests below hold it to
//! the router and the error codes.

use bytes::Bytes;

const DOCUMENT: &str = include_str!("openapi.json");
/// The page carries the document, so it can be saved and read anywhere.
const PAGE: &str = concat!(
    include_str!("docs_head.html"),
    include_str!("openapi.json"),
    include_str!("docs_tail.html")
);

/// The OpenAPI document, as `engine openapi` prints it.
#[must_use]
pub const fn document_text() -> &'static str {
    DOCUMENT
}

pub(super) fn document() -> Bytes {
    Bytes::from_static(DOCUMENT.as_bytes())
}

pub(super) fn page() -> Bytes {
    Bytes::from_static(PAGE.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::code::ErrorCode;
    use super::super::route;
    use super::*;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                operations.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
        operations
    }

    #[test]
    fn the_document_has_exactly_the_routers_routes() {
        let documented: BTreeSet<_> = operations(&document())
            .into_iter()
            .map(|(method, path, _)| (method, path))
            .collect();
        let routed: BTreeSet<_> = route::tests::templates().into_iter().collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn the_document_has_every_code_with_its_status() {
        let document = document();
        let schema = &document["components"]["schemas"]["ErrorCode"];
        let words: Vec<_> = ErrorCode::ALL.map(ErrorCode::as_str).to_vec();
        assert_eq!(schema["enum"], serde_json::json!(words));
        for code in ErrorCode::ALL {
            let status = &schema["x-status"][code.as_str()];
            assert_eq!(*status, code.status().as_u16(), "{}", code.as_str());
        }
    }

    #[test]
    fn every_answer_lists_only_codes_of_its_status_and_every_code_is_listed() {
        let document = document();
        let mut listed = BTreeSet::new();
        let mut check = |status: &str, answer: &Value| {
            let content = &answer["content"]["application/problem+json"]["schema"]["allOf"][1];
            for word in content["properties"]["code"]["enum"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let word = word.as_str().unwrap();
                let code = ErrorCode::ALL
                    .into_iter()
                    .find(|code| code.as_str() == word);
                assert_eq!(code.unwrap().status().as_str(), status, "{word}");
                listed.insert(word.to_owned());
            }
        };
        for (_, _, operation) in operations(&document) {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                check(status, answer);
            }
        }
        let shared = &document["components"]["responses"];
        check("404", &shared["NotFound"]);
        check("405", &shared["MethodNotAllowed"]);
        assert_eq!(listed.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    fields.values().for_each(|value| walk(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }

    #[test]
    fn the_page_carries_the_document_and_nothing_from_elsewhere() {
        assert!(PAGE.contains(DOCUMENT));
        // Such a text would end the script that carries it.
        assert!(!DOCUMENT.contains("</"));
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://"));
    }
}
