//! `If-Match` and its kin.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use crate::{content::Blob, error::BlobError};

/// The conditions of one request.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<i64>,
    if_unmodified_since: Option<i64>,
}

impl Conditions {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, BlobError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let date = |name: &str| match text(name) {
            None => Ok(None),
            Some(value) => {
                let moment =
                    httpdate::parse_http_date(&value).map_err(|_| BlobError::header(name, "it is no HTTP date"))?;
                let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Ok(Some(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)))
            }
        };
        Ok(Self {
            if_match: text("if-match"),
            if_none_match: text("if-none-match"),
            if_modified_since: date("if-modified-since")?,
            if_unmodified_since: date("if-unmodified-since")?,
        })
    }

    /// Checks a write of the blob that is there, or of a new one.
    pub(crate) fn check_write(&self, blob: Option<&Blob>, name: &str) -> Result<(), BlobError> {
        match blob {
            Some(_) if self.if_none_match.as_deref().is_some_and(|tags| tags.trim() == "*") => Err(BlobError::new(
                StatusCode::CONFLICT,
                "BlobAlreadyExists",
                format!("The specified blob already exists: '{name}'."),
            )),
            Some(blob) if self.holds(blob) => Ok(()),
            None if self.if_match.is_none() && self.if_unmodified_since.is_none() => Ok(()),
            _ => Err(BlobError::new(
                StatusCode::PRECONDITION_FAILED,
                "ConditionNotMet",
                "The condition specified using HTTP conditional header(s) is not met.",
            )),
        }
    }

    /// Checks a read; a failed `If-None-Match` answers 304.
    pub(crate) fn check_read(&self, blob: &Blob) -> Result<(), BlobError> {
        if self.holds(blob) {
            return Ok(());
        }
        let cached = self.if_match.is_none() && self.if_unmodified_since.is_none();
        let status = if cached { StatusCode::NOT_MODIFIED } else { StatusCode::PRECONDITION_FAILED };
        Err(BlobError::new(
            status,
            "ConditionNotMet",
            "The condition specified using HTTP conditional header(s) is not met.",
        ))
    }

    fn holds(&self, blob: &Blob) -> bool {
        let etag = blob.etag();
        let names = |tags: &str| {
            tags.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_matches('"') == etag.trim_matches('"'))
        };
        let matched = self.if_match.as_deref().is_none_or(names);
        let unmatched = self.if_none_match.as_deref().is_none_or(|tags| !names(tags));
        let modified = self.if_modified_since.is_none_or(|since| blob.modified() > since);
        let unmodified = self.if_unmodified_since.is_none_or(|since| blob.modified() <= since);
        matched && unmatched && modified && unmodified
    }
}
