//! The handshake: start-up, authentication, ready.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a protocol of thirty messages, few of which belong anywhere"
)]

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::config::ChannelBinding as Wish;

use super::super::route::{Lifeline, Target};
use super::stream::Stream;
use super::{Connection, SessionSettings, WireError, server_error};

/// Opens one host: socket, start-up message, authentication, first "ready".
pub(super) async fn open(
    settings: &SessionSettings,
    target: &Target,
    lifeline: Lifeline,
) -> Result<Connection, WireError> {
    let database = settings.route.database();
    let config = &database.config;
    let silence_max = settings.route.peer_silence_max();
    let stream = Stream::open(target, &database.tls, silence_max).await?;
    let binding = Binding::of(&stream, config.get_channel_binding());
    let mut connection = Connection::new(stream, settings.round_trip_timeout, lifeline);
    let user = config.get_user().unwrap_or("postgres");
    let parameters = [
        ("user", user),
        ("database", config.get_dbname().unwrap_or(user)),
        ("client_encoding", "UTF8"),
    ];
    let options = config.get_options().map(|options| ("options", options));
    let own = settings
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    frontend::startup_message(
        parameters.into_iter().chain(options).chain(own),
        &mut connection.outgoing,
    )?;
    connection.send().await?;
    let credentials = Credentials {
        user,
        password: config.get_password(),
        binding,
    };
    authenticate(&mut connection, credentials).await?;
    loop {
        match connection.message().await? {
            Message::BackendKeyData(key) => connection.process_id = key.process_id(),
            Message::ReadyForQuery(_) => return Ok(connection),
            Message::ErrorResponse(error) => return refused(error.fields()),
            Message::ParameterStatus(_) | Message::NoticeResponse(_) => {}
            _ => return Err(WireError::Protocol("a message out of place at start-up")),
        }
    }
}

fn refused<T>(
    fields: postgres_protocol::message::backend::ErrorFields<'_>,
) -> Result<T, WireError> {
    Err(WireError::Server(Box::new(server_error(fields)?)))
}

struct Credentials<'a> {
    user: &'a str,
    password: Option<&'a [u8]>,
    binding: Binding,
}

/// Whether the password is tied to the TLS session it is given in: a server in the
/// middle, which `sslmode=require` does not notice, could not pass it on.
struct Binding {
    /// What to tie it to; none without TLS, or if that is not wanted.
    end_point: Option<Vec<u8>>,
    /// `channel_binding=require`.
    required: bool,
}

impl Binding {
    fn of(stream: &Stream, wish: Wish) -> Self {
        let end_point = stream.session().and_then(pgtls::server_end_point);
        Self {
            end_point: end_point.filter(|_| wish != Wish::Disable),
            required: wish == Wish::Require,
        }
    }

    /// Refuses to go on untied if it must be tied.
    fn may_be_missing(&self) -> Result<(), WireError> {
        if !self.required {
            return Ok(());
        }
        Err(WireError::Refused(
            "channel_binding=require: the server offers none here; it takes TLS, \
             SCRAM-SHA-256 and a certificate signed with RSA or ECDSA"
                .into(),
        ))
    }

    /// The mechanism and what goes with it. With TLS a server that does not offer
    /// the tied one is told that we could have ("y"), so that it notices who made
    /// it look so (RFC 5802, section 6).
    fn choose(self, is_offered: bool) -> Result<(&'static str, ChannelBinding), WireError> {
        if !is_offered || self.end_point.is_none() {
            self.may_be_missing()?;
        }
        Ok(match (self.end_point, is_offered) {
            (Some(end_point), true) => (
                sasl::SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(end_point),
            ),
            (Some(_), false) => (sasl::SCRAM_SHA_256, ChannelBinding::unrequested()),
            (None, _) => (sasl::SCRAM_SHA_256, ChannelBinding::unsupported()),
        })
    }
}

async fn authenticate(
    connection: &mut Connection,
    credentials: Credentials<'_>,
) -> Result<(), WireError> {
    let Credentials {
        user,
        password,
        binding,
    } = credentials;
    let password = || {
        password.ok_or_else(|| {
            WireError::Refused(
                "the server asks for a password and the database URL has none".into(),
            )
        })
    };
    match said(connection).await? {
        Message::AuthenticationOk => return binding.may_be_missing(),
        Message::AuthenticationCleartextPassword => {
            binding.may_be_missing()?;
            frontend::password_message(password()?, &mut connection.outgoing)?;
            connection.send().await?;
        }
        Message::AuthenticationMd5Password(body) => {
            binding.may_be_missing()?;
            let hash = postgres_protocol::authentication::md5_hash(
                user.as_bytes(),
                password()?,
                body.salt(),
            );
            frontend::password_message(hash.as_bytes(), &mut connection.outgoing)?;
            connection.send().await?;
        }
        Message::AuthenticationSasl(body) => {
            let mechanisms: Vec<_> = body
                .mechanisms()
                .map(|name| Ok(name.to_owned()))
                .collect()?;
            let offers = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
            let is_bound = offers(sasl::SCRAM_SHA_256_PLUS);
            if !is_bound && !offers(sasl::SCRAM_SHA_256) {
                return Err(WireError::Protocol("no SASL mechanism in common"));
            }
            scram_sha_256(connection, password()?, binding.choose(is_bound)?).await?;
        }
        Message::ErrorResponse(error) => return refused(error.fields()),
        _ => {
            return Err(WireError::Protocol(
                "an authentication method that is not supported",
            ));
        }
    }
    match said(connection).await? {
        Message::AuthenticationOk => Ok(()),
        Message::ErrorResponse(error) => refused(error.fields()),
        _ => Err(WireError::Protocol("a message out of place at sign-in")),
    }
}

/// The next message that is not by the way.
async fn said(connection: &mut Connection) -> Result<Message, WireError> {
    loop {
        match connection.message().await? {
            Message::NoticeResponse(_) => {}
            message => return Ok(message),
        }
    }
}

async fn scram_sha_256(
    connection: &mut Connection,
    password: &[u8],
    (mechanism, binding): (&str, ChannelBinding),
) -> Result<(), WireError> {
    let mut scram = ScramSha256::new(password, binding);
    frontend::sasl_initial_response(mechanism, scram.message(), &mut connection.outgoing)?;
    connection.send().await?;
    loop {
        match connection.message().await? {
            Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data())?;
                frontend::sasl_response(scram.message(), &mut connection.outgoing)?;
                connection.send().await?;
            }
            Message::AuthenticationSaslFinal(body) => {
                scram.finish(body.data())?;
                return Ok(());
            }
            Message::ErrorResponse(error) => return refused(error.fields()),
            _ => return Err(WireError::Protocol("a message out of place in SCRAM")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mechanism, and how its first message begins (RFC 5802, section 7).
    #[track_caller]
    fn check(has_tls: bool, required: bool, is_offered: bool, expected: Option<(&str, &str)>) {
        let binding = Binding {
            end_point: has_tls.then(|| vec![1; 32]),
            required,
        };
        let chosen = binding.choose(is_offered).ok();
        let chosen = chosen.map(|(mechanism, binding)| {
            let scram = ScramSha256::new(b"hunter2", binding);
            let message = String::from_utf8(scram.message().to_vec()).unwrap();
            let begin = message.split("n=").next().unwrap().to_owned();
            (mechanism, begin)
        });
        let expected = expected.map(|(mechanism, begin)| (mechanism, begin.to_owned()));
        assert_eq!(chosen, expected, "{has_tls} {required} {is_offered}");
    }

    #[test]
    fn a_password_is_tied_to_its_tls_session_if_both_sides_can() {
        let tied = Some((sasl::SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,"));
        check(true, false, true, tied);
        check(true, true, true, tied);
        check(true, false, false, Some((sasl::SCRAM_SHA_256, "y,,")));
        check(false, false, true, Some((sasl::SCRAM_SHA_256, "n,,")));
        check(false, false, false, Some((sasl::SCRAM_SHA_256, "n,,")));
        check(true, true, false, None);
        check(false, true, true, None);
        check(false, true, false, None);
    }
}
