//! Answers to ACME challenges, shared by who gives them (the ACME client) and who shows them (the router's plain port, its
//! TLS listener, the DNS server).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::Secret;

/// Most answers of one kind that are held at once.
const MAX_ANSWERS: usize = 4096;

/// The answers that certificate authorities may ask for now. A clone is the same board.
#[derive(Debug, Clone, Default)]
pub struct ChallengeBoard(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    http: HashMap<String, (u64, String)>,
    alpn: HashMap<String, (u64, AlpnCertificate)>,
    txt: HashMap<String, Vec<(u64, String)>>,
}

/// The self-signed certificate that proves control of a name by TLS-ALPN-01 (RFC 8737).
#[derive(Debug, Clone)]
pub struct AlpnCertificate {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8 DER.
    pub key: Secret,
}

/// An answer's place on the board; dropping it takes the answer off.
#[derive(Debug)]
#[must_use = "the answer is taken off as soon as this is dropped"]
pub struct Posted {
    board: ChallengeBoard,
    number: u64,
    key: String,
}

impl ChallengeBoard {
    /// Shows `answer` at `/.well-known/acme-challenge/<token>`; none when the board is full.
    pub fn post_http(&self, token: &str, answer: String) -> Option<Posted> {
        self.post(token.to_owned(), |answers, number, token| {
            let fits = answers.http.len() < MAX_ANSWERS;
            fits.then(|| answers.http.insert(token, (number, answer))).is_some()
        })
    }

    /// Shows `certificate` to TLS clients that ask for `name` with the protocol `acme-tls/1`; none when the board is full.
    pub fn post_alpn(&self, name: &str, certificate: AlpnCertificate) -> Option<Posted> {
        self.post(canonical(name), |answers, number, name| {
            let fits = answers.alpn.len() < MAX_ANSWERS;
            fits.then(|| answers.alpn.insert(name, (number, certificate))).is_some()
        })
    }

    /// Adds `value` to the TXT records of `name`, which is `_acme-challenge.` and the name to be proven; none when the
    /// board is full.
    pub fn post_txt(&self, name: &str, value: String) -> Option<Posted> {
        self.post(canonical(name), |answers, number, name| {
            let fits = answers.txt.values().map(Vec::len).sum::<usize>() < MAX_ANSWERS;
            fits.then(|| answers.txt.entry(name).or_default().push((number, value))).is_some()
        })
    }

    /// The answer to an HTTP-01 challenge.
    #[must_use]
    pub fn http(&self, token: &str) -> Option<String> {
        self.lock().http.get(token).map(|(_, answer)| answer.clone())
    }

    /// The answer to a TLS-ALPN-01 challenge.
    #[must_use]
    pub fn alpn(&self, name: &str) -> Option<AlpnCertificate> {
        self.lock().alpn.get(&canonical(name)).map(|(_, certificate)| certificate.clone())
    }

    /// The answers to DNS-01 challenges at this name.
    #[must_use]
    pub fn txt(&self, name: &str) -> Vec<String> {
        let answers = self.lock();
        answers.txt.get(&canonical(name)).into_iter().flatten().map(|(_, value)| value.clone()).collect()
    }

    fn post(&self, key: String, put: impl FnOnce(&mut Answers, u64, String) -> bool) -> Option<Posted> {
        let mut answers = self.lock();
        answers.next += 1;
        let number = answers.next;
        put(&mut answers, number, key.clone()).then(|| Posted { board: self.clone(), number, key })
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        let (mut answers, number) = (self.board.lock(), self.number);
        if answers.http.get(&self.key).is_some_and(|(posted, _)| *posted == number) {
            answers.http.remove(&self.key);
        }
        if answers.alpn.get(&self.key).is_some_and(|(posted, _)| *posted == number) {
            answers.alpn.remove(&self.key);
        }
        if let Some(values) = answers.txt.get_mut(&self.key) {
            values.retain(|(posted, _)| *posted != number);
            if values.is_empty() {
                answers.txt.remove(&self.key);
            }
        }
    }
}

/// Names compare without regard to case and to the root's dot.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_as_long_as_its_guard() {
        let board = ChallengeBoard::default();
        let http = board.post_http("token", "token.key".to_owned()).unwrap();
        let one = board.post_txt("_acme-challenge.A.example.", "1".to_owned()).unwrap();
        let two = board.clone().post_txt("_acme-challenge.a.example", "2".to_owned()).unwrap();
        let certificate = AlpnCertificate { certificate: vec![1], key: Secret::from("key".to_owned()) };
        let alpn = board.post_alpn("a.example", certificate).unwrap();
        assert_eq!(board.http("token").as_deref(), Some("token.key"));
        assert_eq!(board.http("other"), None);
        assert_eq!(board.txt("_ACME-challenge.a.example"), ["1", "2"]);
        assert_eq!(board.alpn("A.EXAMPLE.").unwrap().certificate, [1]);
        drop(one);
        assert_eq!(board.txt("_acme-challenge.a.example"), ["2"]);
        drop((two, http, alpn));
        assert!(board.txt("_acme-challenge.a.example").is_empty());
        assert!(board.http("token").is_none() && board.alpn("a.example").is_none());
    }

    #[test]
    fn a_later_answer_outlives_the_earlier_ones_guard() {
        let board = ChallengeBoard::default();
        let early = board.post_http("token", "1".to_owned()).unwrap();
        let late = board.post_http("token", "2".to_owned()).unwrap();
        drop(early);
        assert_eq!(board.http("token").as_deref(), Some("2"));
        drop(late);
        assert!(board.http("token").is_none());
    }

    #[test]
    fn the_board_is_bounded() {
        let board = ChallengeBoard::default();
        let posted: Vec<_> =
            (0..MAX_ANSWERS).map(|n| board.post_http(&n.to_string(), String::new()).unwrap()).collect();
        assert!(board.post_http("one more", String::new()).is_none());
        drop(posted);
        assert!(board.post_http("one more", String::new()).is_some());
    }
}
