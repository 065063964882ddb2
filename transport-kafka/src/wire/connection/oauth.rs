//! Tokens for OAUTHBEARER (RFC 7628).

use std::time::{Duration, SystemTime};

use tidings_core::{Error, ErrorKind, Result};

use crate::config::{Token, TokenSource};

/// Minimum remaining lifetime of a token: it could otherwise expire before the broker has checked it.
const MARGIN: Duration = Duration::from_secs(30);

/// Requests a token from the source.
///
/// # Errors
/// A transient error of the source is [`Unavailable`](ErrorKind::Unavailable); any other, and a token that expires
/// within [`MARGIN`], is [`Denied`](ErrorKind::Denied).
pub(super) async fn token(source: &dyn TokenSource) -> Result<Token> {
    let token = source.token().await.map_err(|error| {
        let kind = if error.is_retryable() { ErrorKind::Unavailable } else { ErrorKind::Denied };
        Error::caused_by(kind, "the token source returned no token", error)
    })?;
    if token.expires.is_some_and(|time| time_left(time) < MARGIN) {
        let text = "the token source returned a token that has expired or expires within 30 seconds";
        return Err(Error::new(ErrorKind::Denied, text));
    }
    Ok(token)
}

/// Returns the time until then; zero in the past.
pub(super) fn time_left(expires: SystemTime) -> Duration {
    expires.duration_since(SystemTime::now()).unwrap_or_default()
}

/// Builds the client's message.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) if the token or an extension contains the separator, which would change the
/// message's meaning.
pub(super) fn message(token: &Token) -> Result<String> {
    let mut message = format!("n,,\u{1}auth=Bearer {}\u{1}", token.value.expose());
    let separated = |text: &str| text.contains('\u{1}');
    if separated(token.value.expose()) {
        return Err(Error::new(ErrorKind::Invalid, "the token contains a control character"));
    }
    for (name, value) in &token.extensions {
        if separated(name) || separated(value) || name.contains('=') || name == "auth" {
            return Err(Error::new(ErrorKind::Invalid, "an extension of the token has an invalid name or value"));
        }
        message.push_str(name);
        message.push('=');
        message.push_str(value);
        message.push('\u{1}');
    }
    message.push('\u{1}');
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_extensions_are_one_message() {
        let token = Token::new("abc").with_extension("a", "b=c");
        assert_eq!(message(&token).unwrap(), "n,,\u{1}auth=Bearer abc\u{1}a=b=c\u{1}\u{1}");
        for wrong in [Token::new("a\u{1}"), Token::new("a").with_extension("auth", "b")] {
            assert_eq!(message(&wrong).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[tokio::test]
    async fn a_token_about_to_expire_is_refused() {
        let source = || async { Ok(Token::new("t").with_expires(SystemTime::now() + Duration::from_secs(20))) };
        assert_eq!(token(&source).await.unwrap_err().kind(), ErrorKind::Denied);
        let source = || async { Ok(Token::new("t").with_expires(SystemTime::now() + Duration::from_secs(90))) };
        assert!(token(&source).await.is_ok());
    }
}
