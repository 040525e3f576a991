//! The secret that a conductor and its workers share.
//!
//! Owns: how it is read, sent and compared.
//! Never: is shown, or compared in a time that tells how much of it was right.
//! Bound: `TOKEN_BYTES_MIN` to `TOKEN_BYTES_MAX` bytes.

use std::fmt;
use std::path::Path;

/// As many random bytes in base64 or hex resist guessing.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 1_024;
const SCHEME: &str = "Bearer ";

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// # Errors
    /// What is wrong with the file, without its content.
    pub(super) fn read(flag: &str, path: &Path) -> Result<Self, String> {
        let named = |problem: String| format!("{flag} {}: {problem}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let text = text.trim();
        let sized = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len());
        if !sized || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(named(format!(
                "expected {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters, for \
                 example from: openssl rand -hex 32"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The value of an Authorization header.
    pub(super) fn header(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }

    /// Whether an Authorization header carries it. Hashes are compared, and in
    /// constant time, so that neither content nor length can be measured.
    pub(super) fn is_in(&self, header: Option<&[u8]>) -> bool {
        let given = header.and_then(|value| value.strip_prefix(SCHEME.as_bytes()));
        given.is_some_and(|given| blake3::hash(given) == blake3::hash(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_with_its_scheme_opens() {
        let token = Token("0123456789abcdef".to_owned());
        assert!(token.is_in(Some(token.header().as_bytes())));
        for bad in [
            "",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
        ] {
            assert!(!token.is_in(Some(bad.as_bytes())), "{bad}");
        }
        assert!(!token.is_in(None));
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_token_is_long_enough_and_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Token::read("--token-file", &file)
        };
        assert!(read("0123456789abcdef\n").is_ok());
        for bad in ["", "0123456789abcde\n", "0123456789abcdef 0123456789abcdef"] {
            let problem = read(bad).unwrap_err();
            assert!(problem.contains("expected 16"), "{problem}");
            assert!(!problem.contains("0123"), "{problem}");
        }
        let missing = Token::read("--token-file", &directory.path().join("none"));
        assert!(missing.unwrap_err().starts_with("--token-file "));
    }
}
