//! Files of an exported log, where the configuration names its directory.

use super::problems::{Kind, Problem};
use std::io::ErrorKind;
use std::path::Path;

/// A file's content. `path` is the name of a tile or of the checkpoint, never what a request said.
pub async fn file(directory: &Path, path: &str) -> Result<Vec<u8>, Problem> {
    match tokio::fs::read(directory.join(path)).await {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Problem::new(
            Kind::NotFound,
            format!("the exported log has no {path}"),
        )),
        Err(error) => {
            tracing::error!(directory = %directory.display(), path, %error, "an exported file cannot be read");
            Err(Problem::new(
                Kind::Unavailable,
                "the exported file cannot be read",
            ))
        }
    }
}
