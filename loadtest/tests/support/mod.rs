//! What several test programs do to stand in for an engine.

use std::io::BufRead;

/// Takes one request and its body off a connection; nothing at its end.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()
}
