//! Authentication by SASL: at the start of a connection, and again before the session's lifetime ends (KIP-368).

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use tidings_core::{Error, ErrorKind, Result};

use super::exchange::Exchange;
use super::oauth;
use super::scram::Scram;
use crate::config::{Sasl, ScramHash};
use crate::wire::messages::{BrokerVersions, Code};

/// Percentages of a session's lifetime between which it is renewed, at a random time, so that the connections of many
/// processes are not renewed at once.
const RENEW_PERCENT: std::ops::Range<u64> = 80..95;

/// Maximum length of a broker's reason in an error, in characters.
const MAX_REASON: usize = 256;

/// How long credentials are valid.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    /// When to authenticate again, on the same connection.
    pub(super) renew_after: Option<Duration>,
    /// When the credentials expire, where the broker does not accept new ones on the same connection.
    pub(super) expires_after: Option<Duration>,
}

/// Authenticates.
///
/// # Errors
/// [`Denied`](ErrorKind::Denied), with the broker's reason, if the mechanism or the credentials are refused;
/// [`Unavailable`](ErrorKind::Unavailable) if the connection breaks or the token source is down.
pub(super) async fn authenticate(
    exchange: &mut impl Exchange,
    sasl: &Sasl,
    versions: &BrokerVersions,
) -> Result<Session> {
    let mechanism = match sasl {
        Sasl::Plain { .. } => "PLAIN",
        Sasl::Scram { hash: ScramHash::Sha256, .. } => "SCRAM-SHA-256",
        Sasl::Scram { hash: ScramHash::Sha512, .. } => "SCRAM-SHA-512",
        Sasl::OAuthBearer(_) => "OAUTHBEARER",
    };
    let version = versions.of_request::<SaslAuthenticateRequest>()?;
    // Requested first, because the broker allows little time between the two steps.
    let token = match sasl {
        Sasl::OAuthBearer(source) => Some(oauth::token(source.as_ref()).await?),
        _ => None,
    };
    select(exchange, mechanism).await?;
    let mut dialogue = Dialogue { exchange, version, lifetime: Duration::ZERO };
    match sasl {
        Sasl::Plain { username, password } => {
            dialogue.say(format!("\0{username}\0{}", password.expose())).await?;
        }
        Sasl::Scram { hash, username, password } => {
            let scram = Scram::new(*hash, username)?;
            let challenge = dialogue.say(scram.first()).await?;
            let proof = scram.prove(password, &challenge)?;
            let verdict = dialogue.say(proof.message).await?;
            proof.expected.verify(&verdict)?;
        }
        Sasl::OAuthBearer(_) => {
            let token = token.as_ref().map(oauth::message).transpose()?.unwrap_or_default();
            let refusal = dialogue.say(token).await?;
            if !refusal.is_empty() {
                // The broker refuses with a message, and sends an error after its acknowledgement (RFC 7628, 3.2.3).
                dialogue.say("\u{1}".to_owned()).await?;
                return Err(Error::new(ErrorKind::Denied, "authenticate with OAUTHBEARER: the token was refused"));
            }
        }
    }
    let expires = token.and_then(|token| token.expires);
    Ok(session(dialogue.lifetime, expires.map(oauth::time_left)))
}

/// Returns when a session is renewed or expires.
fn session(lifetime: Duration, token_left: Option<Duration>) -> Session {
    if lifetime.is_zero() {
        return Session { renew_after: None, expires_after: token_left };
    }
    let percent = u64::from(super::random_byte()) % (RENEW_PERCENT.end - RENEW_PERCENT.start) + RENEW_PERCENT.start;
    let millis = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    Session { renew_after: Some(Duration::from_millis(millis / 100 * percent)), expires_after: None }
}

/// Agrees on the mechanism.
async fn select(exchange: &mut impl Exchange, mechanism: &'static str) -> Result<()> {
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let answer = exchange.call(&request, 1).await?;
    Code(answer.error_code).ok().map_err(|code| {
        let offered: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
        let what = format!("authenticate with {mechanism}");
        if offered.is_empty() {
            return code.error(what);
        }
        let text = format!("{what}: the broker does not offer it; it offers {}", offered.join(", "));
        Error::new(ErrorKind::Denied, text)
    })
}

/// An exchange of a mechanism's messages.
struct Dialogue<'a, E> {
    exchange: &'a mut E,
    version: i16,
    /// The session's lifetime, as last reported; zero is unlimited.
    lifetime: Duration,
}

impl<E: Exchange> Dialogue<'_, E> {
    async fn say(&mut self, message: String) -> Result<Bytes> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let answer = self.exchange.call(&request, self.version).await?;
        Code(answer.error_code).ok().map_err(|code| {
            let reason = answer.error_message.as_deref().filter(|text| !text.is_empty());
            let reason = reason.map_or_else(|| code.to_string(), shown);
            Error::new(code.kind(), format!("authenticate: {reason}"))
        })?;
        self.lifetime = Duration::from_millis(u64::try_from(answer.session_lifetime_ms).unwrap_or(0));
        Ok(answer.auth_bytes)
    }
}

/// Returns a broker's text for an error: without control characters, and of limited length.
fn shown(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_broker_is_cut_and_has_no_control_characters() {
        assert_eq!(shown("bad\nline\u{1b}[0m"), "bad line [0m");
        assert_eq!(shown(&"x".repeat(1 << 20)).len(), MAX_REASON);
    }

    #[test]
    fn a_session_is_renewed_before_it_ends_and_a_token_without_one_expires() {
        let lifetime = Duration::from_secs(100);
        for _ in 0..100 {
            let renewed = session(lifetime, Some(Duration::from_secs(5))).renew_after.unwrap();
            assert!((Duration::from_secs(80)..Duration::from_secs(95)).contains(&renewed), "{renewed:?}");
        }
        let left = Some(Duration::from_secs(5));
        assert_eq!(session(Duration::ZERO, left), Session { renew_after: None, expires_after: left });
        assert_eq!(session(Duration::ZERO, None), Session::default());
    }
}
