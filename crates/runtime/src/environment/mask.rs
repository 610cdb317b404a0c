//! Keeps credentials out of logs and messages.

/// Replaces what stands between `://` and `@` of an address, wherever one occurs in the text. Quotes may be part of a
/// password, so they end no address: rather too much is masked than too little.
pub(super) fn mask_urls(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        masked.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                masked.push_str("****");
                &after[at..]
            }
            None => after,
        };
    }
    masked.push_str(rest);
    masked
}

/// Text that must not be shown, gathered once from the configuration.
#[derive(Clone, Default)]
pub(super) struct Mask(Vec<String>);

impl Mask {
    /// Shorter secrets would blot out ordinary words; they are only hidden inside addresses.
    const MIN_BYTES: usize = 6;

    /// A mask for the user names and passwords in these addresses.
    pub(super) fn of_urls<'a>(urls: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hidden = Vec::new();
        for url in urls.into_iter().filter_map(|url| url::Url::parse(url).ok()) {
            for raw in [url.password().unwrap_or_default(), url.username()] {
                let plain = percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned();
                let shown_elsewhere = matches!(raw, "__token__" | "oauth2accesstoken");
                hidden.extend(
                    [raw.to_owned(), plain].into_iter().filter(|s| s.len() >= Self::MIN_BYTES && !shown_elsewhere),
                );
            }
        }
        hidden.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        hidden.dedup();
        Self(hidden)
    }

    /// The text without any of it.
    pub(super) fn apply(&self, text: &str) -> String {
        let masked = mask_urls(text);
        self.0.iter().fold(masked, |masked, secret| masked.replace(secret.as_str(), "****"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_credentials() {
        let cases = [
            ("plain text", "plain text"),
            ("https://example.org/a@b", "https://example.org/a@b"),
            ("see https://user:pass@example.org/simple now", "see https://****@example.org/simple now"),
            ("https://to@ken@example.org", "https://****@example.org"),
            ("a http://u:p@h/ b git+https://t@h/x", "a http://****@h/ b git+https://****@h/x"),
            ("`https://u:p@h`", "`https://****@h`"),
            ("https://'u:p\"<w>`@h", "https://****@h"),
            ("://", "://"),
        ];
        for (text, expected) in cases {
            assert_eq!(mask_urls(text), expected);
        }
    }

    #[test]
    fn secrets_are_hidden_wherever_they_occur() {
        let mask =
            Mask::of_urls(["https://robot-7:se%40cret-word@example.org/simple", "https://example.org", "no address"]);
        let shown = mask.apply("401 for robot-7 with se@cret-word or se%40cret-word");
        assert_eq!(shown, "401 for **** with **** or ****");
        assert_eq!(Mask::of_urls(["https://me:ab@example.org"]).apply("me and ab"), "me and ab");
    }
}
