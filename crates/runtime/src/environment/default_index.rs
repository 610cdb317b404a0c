//! Which package index an installer uses when it is told none. Only the installer knows: its own help says it, so that
//! no address has to stand in this program.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command};

/// Longest time that an installer may take to print its help.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Most that is read of it, in bytes.
const MAX_HELP_BYTES: u64 = 1 << 20;
/// The options that say it, the newer name first.
const OPTIONS: [&str; 2] = ["--default-index", "--index-url"];

/// The index that uv uses by default.
pub(super) async fn of_uv(uv: &Path) -> Option<String> {
    in_help(&help(uv, &["pip", "compile", "--help"]).await?)
}

/// The index that the pip of this interpreter uses by default.
pub(super) async fn of_pip(python: &Path) -> Option<String> {
    in_help(&help(python, &["-I", "-m", "pip", "install", "--help"]).await?)
}

async fn help(program: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    // Without variables and files of configuration: pip shows configured values as if they were defaults.
    command.args(args).env_clear().env("PIP_CONFIG_FILE", "/dev/null").env("COLUMNS", "400").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut text = Vec::new();
    let stdout = child.stdout.take()?;
    let read = async move {
        stdout.take(MAX_HELP_BYTES).read_to_end(&mut text).await.ok()?;
        Some(text)
    };
    let text = tokio::time::timeout(TIME_LIMIT, read).await.ok()??;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The first address after the option's name.
fn in_help(help: &str) -> Option<String> {
    OPTIONS.iter().find_map(|option| {
        let mut words = help.split_whitespace().skip_while(|word| word.trim_end_matches(',') != *option).take(40);
        let word =
            words.find_map(|word| word.find("https://").or_else(|| word.find("http://")).map(|at| &word[at..]))?;
        let end = word.find(['>', ')', ']', ',', ';']).unwrap_or(word.len());
        Some(word[..end].trim_end_matches('.').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_in_the_help() {
        let pip = "  -i, --index-url <url>       Base URL of the Python Package Index (default\n                              \
                   https://index.example/simple). This should point to a\n  --extra-index-url <url>";
        let uv = "      --default-index <DEFAULT_INDEX>\n          The default package index (by default: <https://index.example/simple>) [env: UV_DEFAULT_INDEX]\n";
        let old = "      --index-url <INDEX_URL>\n          The URL of the index (by\n          default: <https://index.example/simple>)";
        for help in [pip, uv, old] {
            assert_eq!(in_help(help).as_deref(), Some("https://index.example/simple"), "{help}");
        }
        for help in ["", "--index-url", "--index <X> https://index.example/simple"] {
            assert_eq!(in_help(help), None, "{help}");
        }
    }
}
