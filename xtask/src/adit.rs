//! The program `adit`, built for use.

use std::path::PathBuf;

use serde::Deserialize;

use crate::failure::Failure;
use crate::program;

/// What cargo tells about one thing that it built; of all else only the reason is known.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
}

/// Builds the release binary and returns where it is.
pub(crate) fn build() -> Result<PathBuf, Failure> {
    let what = ["build", "--release", "--package", "adit", "--bin", "adit"];
    let format = "--message-format=json-render-diagnostics";
    let messages = program::output(program::cargo(&what).arg(format))?;
    executable(&String::from_utf8_lossy(&messages))
        .ok_or_else(|| Failure::new("cargo names no executable of adit"))
}

/// The executable that one of cargo's messages names.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_libraries() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"wire"},"executable":null}
            {"reason":"build-script-executed","env":[]}
            {"reason":"compiler-artifact","target":{"name":"adit"},"executable":"/t/release/adit"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/t/release/adit".into()));
    }

    #[test]
    fn without_an_executable_there_is_none() {
        assert_eq!(executable("{\"reason\":\"build-finished\",\"success\":true}\nrubbish"), None);
    }
}
