//! Shared access signatures: made here, checked here, in the parameters that storage clients pass along.
//!
//! A signature opens one container, or one directory of it (`sr=d`, `sdd` = the number of its parts), for some
//! permissions until a moment. What is signed is our own text: nobody else makes or checks these.

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use casemate_model::Secret;
use jiff::Timestamp;
use url::form_urlencoded;

use crate::{
    error::BlobError,
    name::{BlobName, ContainerName, Target},
    query::Query,
};

const VERSION: &str = "2024-11-04";

/// What a signature permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Read contents and properties.
    pub read: bool,
    /// Add blobs or blocks.
    pub add: bool,
    /// Make new blobs, and the container itself.
    pub create: bool,
    /// Write and overwrite blobs, their blocks and metadata.
    pub write: bool,
    /// Delete blobs.
    pub delete: bool,
    /// List blobs.
    pub list: bool,
}

impl Permissions {
    /// Everything: what a datastore's secret gives.
    pub const ALL: Self = Self { read: true, add: true, create: true, write: true, delete: true, list: true };
    /// Reading and listing.
    pub const READ: Self = Self { read: true, add: false, create: false, write: false, delete: false, list: true };

    fn letters(self) -> String {
        let all = [
            (self.read, 'r'),
            (self.add, 'a'),
            (self.create, 'c'),
            (self.write, 'w'),
            (self.delete, 'd'),
            (self.list, 'l'),
        ];
        all.iter().filter(|(given, _)| *given).map(|(_, letter)| *letter).collect()
    }

    fn parse(letters: &str) -> Option<Self> {
        let mut found = Self::default();
        for letter in letters.chars() {
            match letter {
                'r' => found.read = true,
                'a' => found.add = true,
                'c' => found.create = true,
                'w' => found.write = true,
                'd' => found.delete = true,
                'l' => found.list = true,
                _ => return None,
            }
        }
        Some(found)
    }
}

/// A checked signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) permissions: Permissions,
    /// The directory it is limited to, without slashes around; empty for the whole container.
    pub(crate) directory: String,
}

impl Grant {
    /// Fails unless `given` holds.
    pub(crate) fn need(&self, given: bool, what: &str) -> Result<(), BlobError> {
        if given {
            return Ok(());
        }
        Err(BlobError::new(
            http::StatusCode::FORBIDDEN,
            "AuthorizationPermissionMismatch",
            format!(
                "This request is not authorized to perform this operation: the signature does not permit to {what}."
            ),
        ))
    }
}

/// Makes and checks signatures with one key.
pub(crate) struct Signer(hmac::Key);

impl Signer {
    pub(crate) fn new(key: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// The query string that opens `directory` (empty: all) of `container`.
    pub(crate) fn sign(
        &self,
        container: &ContainerName,
        directory: &str,
        permissions: Permissions,
        starts: Timestamp,
        expires: Timestamp,
    ) -> Result<Secret, BlobError> {
        let depth = match directory {
            "" => 0,
            directory => BlobName::parse(directory)?.as_str().split('/').count(),
        };
        let (letters, starts, expires) = (permissions.letters(), shown(starts), shown(expires));
        let text = text_to_sign(container, directory, &letters, &starts, &expires);
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, text.as_bytes()));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("sv", VERSION).append_pair("sr", if depth == 0 { "c" } else { "d" });
        if depth > 0 {
            query.append_pair("sdd", &depth.to_string());
        }
        query.append_pair("sp", &letters).append_pair("st", &starts).append_pair("se", &expires);
        query.append_pair("spr", "https").append_pair("sig", &signature);
        Ok(Secret::from(query.finish()))
    }

    /// Checks the signature in `query` for `target`. `listed` is the prefix of a listing, which a signature for a
    /// directory must cover as if it were a blob's name.
    pub(crate) fn check(&self, query: &Query, target: &Target, now: Timestamp) -> Result<Grant, BlobError> {
        let given = query.get("sig").ok_or_else(|| BlobError::forbidden("it carries no shared access signature"))?;
        let (container, path) = match target {
            Target::Blob(container, name) => (container, name.as_str()),
            Target::Container(container) => (container, query.text("prefix")),
        };
        let directory = signed_directory(query, path)?;
        let (letters, starts, expires) = (query.text("sp"), query.text("st"), query.text("se"));
        let text = text_to_sign(container, &directory, letters, starts, expires);
        let expected = hmac::sign(&self.0, text.as_bytes());
        let given = URL_SAFE_NO_PAD.decode(given.as_bytes()).unwrap_or_default();
        if constant_time::verify_slices_are_equal(expected.as_ref(), &given).is_err() {
            return Err(BlobError::forbidden("the signature does not fit this address, or was not made here"));
        }
        let moment = |text: &str| text.parse::<Timestamp>().map_err(|_| BlobError::forbidden("it has no period"));
        if now >= moment(expires)? {
            return Err(BlobError::forbidden(&format!("the signature expired at {expires}")));
        }
        if now < moment(starts)? {
            return Err(BlobError::forbidden(&format!("the signature is valid only from {starts}")));
        }
        let permissions = Permissions::parse(letters).ok_or_else(|| BlobError::forbidden("it has no permissions"))?;
        Ok(Grant { permissions, directory })
    }
}

/// The first `sdd` parts of what is asked for: the directory that the signature must have been made for.
fn signed_directory(query: &Query, path: &str) -> Result<String, BlobError> {
    if query.is("sr", "c") {
        return Ok(String::new());
    }
    let depth: usize = query.text("sdd").parse().unwrap_or(0);
    let parts: Vec<&str> = path.split('/').take(depth).collect();
    if !query.is("sr", "d") || depth == 0 || parts.len() < depth {
        return Err(BlobError::forbidden("the signature does not cover this address"));
    }
    Ok(parts.join("/"))
}

fn text_to_sign(container: &ContainerName, directory: &str, letters: &str, starts: &str, expires: &str) -> String {
    format!("casemate-sas-1\n{container}\n{directory}\n{letters}\n{starts}\n{expires}")
}

fn shown(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn blob(container: &str, name: &str) -> Target {
        Target::Blob(ContainerName::parse(container).unwrap(), BlobName::parse(name).unwrap())
    }

    #[test]
    fn a_signature_opens_what_it_names_and_nothing_else() {
        let signer = Signer::new(&Secret::from("key"));
        let container = ContainerName::parse("abc").unwrap();
        let sign = |directory: &str| {
            let query = signer.sign(&container, directory, Permissions::READ, at(100), at(200)).unwrap();
            query.expose_str().unwrap().to_owned()
        };
        let (all, dir) = (sign(""), sign("models/m"));
        let flip = |text: &str, from: &str, to: &str| text.replace(from, to);
        for (what, query, target, now, good) in [
            ("whole container", all.clone(), blob("abc", "x"), 150, true),
            ("other container", all.clone(), blob("abd", "x"), 150, false),
            ("expired", all.clone(), blob("abc", "x"), 200, false),
            ("too early", all.clone(), blob("abc", "x"), 99, false),
            ("more permissions", flip(&all, "sp=rl", "sp=rwl"), blob("abc", "x"), 150, false),
            ("later end", flip(&all, "se=1970", "se=1990"), blob("abc", "x"), 150, false),
            ("no signature", "sp=rl".to_owned(), blob("abc", "x"), 150, false),
            ("empty signature", "sr=c&sp=rl&sig=".to_owned(), blob("abc", "x"), 150, false),
            ("inside the directory", dir.clone(), blob("abc", "models/m/x"), 150, true),
            ("the directory's own name", dir.clone(), blob("abc", "models/m"), 150, true),
            ("beside the directory", dir.clone(), blob("abc", "models/n/x"), 150, false),
            ("a longer sibling", dir.clone(), blob("abc", "models/mm/x"), 150, false),
            ("above the directory", dir.clone(), blob("abc", "models"), 150, false),
            ("directory as container", flip(&dir, "sr=d", "sr=c"), blob("abc", "x"), 150, false),
            ("less deep", flip(&dir, "sdd=2", "sdd=1"), blob("abc", "models/n"), 150, false),
        ] {
            let query = Query::parse(Some(&query)).unwrap();
            assert_eq!(signer.check(&query, &target, at(now)).is_ok(), good, "{what}");
        }
        let other = Signer::new(&Secret::from("other key"));
        assert!(other.check(&Query::parse(Some(&all)).unwrap(), &blob("abc", "x"), at(150)).is_err());
    }
}
