//! Passwords that nobody can guess, and the form in which a server keeps one (RFC 5802, RFC 7677): computed here, so
//! that the password itself is in no statement, and in no log of ours or the server's.

use std::fs::File;
use std::io;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// Where the chance comes from.
pub(in crate::store) const SOURCE: &str = "/dev/urandom";
/// PostgreSQL's own number. The password is 160 random bits: more rounds would guard nothing.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");

/// `SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key>`, as `ALTER ROLE … PASSWORD` takes it. The password is of
/// plain ASCII letters and digits, which need no preparation.
pub(in crate::store) fn verifier(password: &str, salt: &[u8]) -> String {
    let mut salted = [0_u8; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${ROUNDS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

/// Letters and digits from the system's own source of chance: fit for a password.
pub(in crate::store) fn random_text(len: usize) -> io::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0_u8; len];
    File::open(SOURCE).and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))?;
    let letter = |byte: u8| LETTERS.get(usize::from(byte) % LETTERS.len()).copied().unwrap_or(b'a');
    Ok(bytes.into_iter().map(|byte| char::from(letter(byte))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_postgresql_computes() {
        // rolpassword of a role whose password is "pencil", and the salt that RFC 7677 uses in its example.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            verifier("pencil", &salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
             $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, other) = (random_text(32).unwrap(), random_text(32).unwrap());
        assert!(one.len() == 32 && other.len() == 32 && one != other);
    }
}
