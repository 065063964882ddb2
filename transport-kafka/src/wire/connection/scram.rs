//! SCRAM (RFC 5802, RFC 7677), the client's side, without channel binding.
//!
//! Names and passwords are used as they are, in UTF-8, as Kafka's own client does: brokers store verifiers of the same
//! form.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2, rand};
use tidings_core::{Error, ErrorKind, Result, Secret};

use crate::config::ScramHash;

/// Bytes of a nonce, before they are encoded.
const NONCE_BYTES: usize = 24;
/// Iterations that a broker may request. Fewer are a downgrade (RFC 7677), and more would block a thread.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;
/// Header of a client without channel binding, and the same encoded.
const HEADER: &str = "n,,";
const HEADER_BASE64: &str = "biws";

/// An authentication that has begun.
pub(super) struct Scram {
    hash: ScramHash,
    /// The first message without its header.
    bare: String,
    nonce: String,
}

/// The client's second message, and the expected signature, which only a broker with the password can compute.
pub(super) struct Proof {
    pub(super) message: String,
    pub(super) expected: Expected,
}

/// The broker's signature.
pub(super) struct Expected {
    key: hmac::Key,
    signed: String,
}

fn denied(why: &'static str) -> Error {
    Error::new(ErrorKind::Denied, format!("authenticate with SCRAM: {why}"))
}

impl Scram {
    pub(super) fn new(hash: ScramHash, username: &str) -> Result<Self> {
        let mut nonce = [0; NONCE_BYTES];
        let random = rand::SystemRandom::new().fill(&mut nonce);
        random.map_err(|_| Error::new(ErrorKind::Unavailable, "the system returned no random bytes"))?;
        Ok(Self::with_nonce(hash, username, BASE64.encode(nonce)))
    }

    fn with_nonce(hash: ScramHash, username: &str, nonce: String) -> Self {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        Self { hash, bare: format!("n={name},r={nonce}"), nonce }
    }

    /// Returns the client's first message.
    pub(super) fn first(&self) -> String {
        format!("{HEADER}{}", self.bare)
    }

    /// Answers the broker's challenge.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied) if the challenge is malformed, or not one for this client.
    pub(super) fn prove(&self, password: &Secret, challenge: &Bytes) -> Result<Proof> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| denied("the challenge is not UTF-8"))?;
        let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name));
        let (nonce, salt, count) = (field("r="), field("s="), field("i="));
        let nonce = nonce.filter(|nonce| nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce));
        let nonce = nonce.ok_or_else(|| denied("the challenge is for another client"))?;
        let salt = salt.and_then(|salt| BASE64.decode(salt).ok()).ok_or_else(|| denied("the challenge has no salt"))?;
        let count = count.and_then(|count| count.parse().ok()).filter(|count| ITERATIONS.contains(count));
        let count =
            count.and_then(NonZeroU32::new).ok_or_else(|| denied("the challenge has an invalid iteration count"))?;
        let salted = self.salted(password, &salt, count);
        let without_proof = format!("c={HEADER_BASE64},r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.digest(), client_key.as_ref());
        let signature = hmac::sign(&hmac::Key::new(self.hmac(), stored_key.as_ref()), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = hmac::sign(&salted, b"Server Key");
        let key = hmac::Key::new(self.hmac(), server_key.as_ref());
        let message = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok(Proof { message, expected: Expected { key, signed } })
    }

    /// Returns the salted password as a key.
    fn salted(&self, password: &Secret, salt: &[u8], count: NonZeroU32) -> hmac::Key {
        let (algorithm, length) = match self.hash {
            ScramHash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            ScramHash::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, count, salt, password.expose().as_bytes(), &mut salted);
        hmac::Key::new(self.hmac(), &salted)
    }

    fn hmac(&self) -> hmac::Algorithm {
        match self.hash {
            ScramHash::Sha256 => hmac::HMAC_SHA256,
            ScramHash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(&self) -> &'static digest::Algorithm {
        match self.hash {
            ScramHash::Sha256 => &digest::SHA256,
            ScramHash::Sha512 => &digest::SHA512,
        }
    }
}

impl Expected {
    /// Checks the broker's last message.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied): the broker does not know the password.
    pub(super) fn verify(&self, verdict: &Bytes) -> Result<()> {
        let verdict = std::str::from_utf8(verdict).unwrap_or_default();
        let signature = verdict.split(',').find_map(|part| part.strip_prefix("v="));
        let signature = signature.and_then(|signature| BASE64.decode(signature).ok());
        let signature = signature.ok_or_else(|| denied("the broker did not sign its answer"))?;
        hmac::verify(&self.key, self.signed.as_bytes(), &signature)
            .map_err(|_| denied("the broker does not know the password"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    fn example() -> (Scram, Bytes) {
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let scram = Scram::with_nonce(ScramHash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into());
        (scram, Bytes::from_static(challenge.as_bytes()))
    }

    #[test]
    fn the_example_of_the_standard_is_met() {
        let (scram, challenge) = example();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let proof = scram.prove(&Secret::from("pencil"), &challenge).unwrap();
        assert!(proof.message.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{}", proof.message);
        let verdict = Bytes::from_static(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(proof.expected.verify(&verdict).is_ok());
        for wrong in [&b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="[..], b"v=", b"e=other-error", b""] {
            let error = proof.expected.verify(&Bytes::from_static(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
        }
    }

    #[test]
    fn a_challenge_that_is_weak_or_for_another_is_refused() {
        let (scram, challenge) = example();
        let challenge = std::str::from_utf8(&challenge).unwrap();
        for (from, to) in
            [("i=4096", "i=1"), ("i=4096", "i=4000000000"), ("i=4096", ""), ("r=rO", "r=rP"), ("s=W2", "s=-")]
        {
            let wrong = Bytes::from(challenge.replace(from, to));
            let error = scram.prove(&Secret::from("pencil"), &wrong).map(|proof| proof.message).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{to}");
        }
    }

    #[test]
    fn a_name_cannot_add_a_field() {
        let scram = Scram::with_nonce(ScramHash::Sha512, "a=b,c", "n".into());
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=n");
    }
}
