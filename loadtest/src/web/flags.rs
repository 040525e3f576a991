//! The flags of the web page.
//!
//! Owns: `--web` and what goes with it.
//! Never: lets others reach the page by accident.
//! Invariant: an address that is not loopback comes with the names it is asked by.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Web page")]
pub(crate) struct WebArgs {
    /// Serve a page that shows runs, starts, changes and stops them, for example
    /// 127.0.0.1:8089; port 0 takes any free one. The address is printed. The run
    /// waits for Start on the page and, without --run-time, goes on until Stop.
    /// Ctrl-C ends the process.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub(crate) web: Option<SocketAddr>,
    /// A name or address by which browsers on other machines open the page, such as
    /// loadgen.example or 10.0.0.7; may be repeated. Needed if --web is not this
    /// machine alone. Whoever reaches the page can start load: it asks for no password.
    #[arg(long, value_name = "NAME", requires = "web")]
    pub(crate) web_host: Vec<String>,
    /// Start the first run at once, not only on the page.
    #[arg(long, requires = "web")]
    pub(crate) autostart: bool,
    /// End the process that long after a run has ended, with the exit code that the
    /// run would have without --web; 0s ends it at once.
    #[arg(long, value_name = "DURATION", requires = "autostart", value_parser = humantime::parse_duration)]
    pub(crate) autoquit: Option<Duration>,
}

impl WebArgs {
    /// # Errors
    /// What is missing.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.web {
            Some(address) if !address.ip().is_loopback() && self.web_host.is_empty() => {
                Err(format!(
                    "--web {address} can be reached from other machines, and whoever reaches it can \
                     start load: use 127.0.0.1, or add --web-host with the name it is opened by"
                ))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; expected an address such as 127.0.0.1:8089"))?;
    addresses.next().ok_or_else(|| "no address".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::args::{Parsed, parse};

    #[track_caller]
    fn check(flags: &str, part: Option<&str>) {
        let line = format!("loadtest run {flags}");
        let line = line.split_whitespace().map(std::ffi::OsString::from);
        match (parse(line), part) {
            (Parsed::Run(_), None) => {}
            (Parsed::Usage(message), Some(part)) => {
                assert!(message.contains(part), "{flags}: {message}");
            }
            (other, _) => panic!("{flags}: {other:?}"),
        }
    }

    #[test]
    fn the_page_is_for_this_machine_unless_others_are_named() {
        check("--web 127.0.0.1:0", None);
        check("--web [::1]:8089", None);
        check("--web localhost:8089", None);
        check("--web 0.0.0.0:8089", Some("--web-host"));
        check("--web 10.0.0.7:8089 --allow-remote", Some("--web-host"));
        check("--web 0.0.0.0:8089 --web-host loadgen.example", None);
        check("--web 127.0.0.1", Some("127.0.0.1:8089"));
        check("--web-host a", Some("--web"));
    }

    #[test]
    fn quitting_by_itself_needs_a_start_by_itself() {
        check("--web 127.0.0.1:0 --autostart --autoquit 0s", None);
        check("--web 127.0.0.1:0 --autoquit 5s", Some("--autostart"));
        check("--autostart", Some("--web"));
        check(
            "--web 127.0.0.1:0 --autostart --autoquit soon",
            Some("--autoquit"),
        );
    }
}
