//! The handshake: start-up, authentication, ready.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a protocol of thirty messages, few of which belong anywhere"
)]

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::config::SslMode;

use super::super::route::{Lifeline, Target};
use super::stream::Stream;
use super::{Connection, SessionSettings, WireError, server_error};

/// Opens one host: socket, start-up message, authentication, first "ready".
pub(super) async fn open(
    settings: &SessionSettings,
    target: &Target,
    lifeline: Lifeline,
) -> Result<Connection, WireError> {
    let config = settings.route.config();
    if config.get_ssl_mode() == SslMode::Require {
        return Err(WireError::Refused(
            "sslmode=require: this build speaks to PostgreSQL without TLS; use sslmode=prefer over a private network".into(),
        ));
    }
    let stream = Stream::open(target, settings.route.peer_silence_max()).await?;
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
    authenticate(&mut connection, user, config.get_password()).await?;
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

async fn authenticate(
    connection: &mut Connection,
    user: &str,
    password: Option<&[u8]>,
) -> Result<(), WireError> {
    let password = || {
        password.ok_or_else(|| {
            WireError::Refused(
                "the server asks for a password and the database URL has none".into(),
            )
        })
    };
    loop {
        match connection.message().await? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password()?, &mut connection.outgoing)?;
                connection.send().await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = postgres_protocol::authentication::md5_hash(
                    user.as_bytes(),
                    password()?,
                    body.salt(),
                );
                frontend::password_message(hash.as_bytes(), &mut connection.outgoing)?;
                connection.send().await?;
            }
            Message::AuthenticationSasl(body) => {
                let scram = body
                    .mechanisms()
                    .any(|mechanism| Ok(mechanism == sasl::SCRAM_SHA_256))?;
                if !scram {
                    return Err(WireError::Protocol("no SASL mechanism in common"));
                }
                scram_sha_256(connection, password()?).await?;
            }
            Message::ErrorResponse(error) => return refused(error.fields()),
            Message::NoticeResponse(_) => {}
            _ => {
                return Err(WireError::Protocol(
                    "an authentication method that is not supported",
                ));
            }
        }
    }
}

async fn scram_sha_256(connection: &mut Connection, password: &[u8]) -> Result<(), WireError> {
    let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
    frontend::sasl_initial_response(
        sasl::SCRAM_SHA_256,
        scram.message(),
        &mut connection.outgoing,
    )?;
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
