//! Checkpoints (C2SP tlog-checkpoint): a log's tree head, as the text of a signed note.

use crate::encoding::{base64_encode, decimal, hash_from_base64};
use crate::{Error, SignedNote};
use merkle_tree::{EMPTY_ROOT, Hash, TreeSize};
use std::fmt;
use std::str::FromStr;

/// A log's origin, size and root.
///
/// ```
/// let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
/// let checkpoint: tlog::Checkpoint = text.parse()?;
/// assert_eq!(checkpoint.size().get(), 20_852_163);
/// assert_eq!(checkpoint.to_string(), text);
/// # Ok::<(), tlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: TreeSize,
    root: Hash,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// # Errors
    /// If the origin is empty or has a control character, or an empty tree has a root other than its own.
    pub fn new(origin: &str, size: TreeSize, root: Hash) -> Result<Checkpoint, Error> {
        Checkpoint {
            origin: origin.to_owned(),
            size,
            root,
            extensions: Vec::new(),
        }
        .checked()
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn size(&self) -> TreeSize {
        self.size
    }

    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Lines with a meaning that only the log knows.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    fn checked(self) -> Result<Checkpoint, Error> {
        if self.origin.is_empty() || self.extensions.iter().any(String::is_empty) {
            return Err(Error::Checkpoint("a line is empty"));
        }
        if self.origin.chars().any(|c| c < ' ') {
            return Err(Error::Checkpoint("the origin has a control character"));
        }
        if self.size == TreeSize::ZERO && self.root != EMPTY_ROOT {
            return Err(Error::Checkpoint("the root is not that of the empty tree"));
        }
        Ok(self)
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    /// From the text of a note.
    fn from_str(text: &str) -> Result<Checkpoint, Error> {
        SignedNote::new(text).map_err(|_| Error::Checkpoint("it is not the text of a note"))?;
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let mut line = || {
            lines
                .next()
                .ok_or(Error::Checkpoint("it has fewer than three lines"))
        };
        let (origin, size, root) = (line()?, line()?, line()?);
        let size = decimal(size).and_then(|size| TreeSize::new(size).ok());
        Checkpoint {
            origin: origin.to_owned(),
            size: size.ok_or(Error::Checkpoint("the second line is no tree size"))?,
            root: hash_from_base64(root).ok_or(Error::Checkpoint("the third line is no hash"))?,
            extensions: lines.map(str::to_owned).collect(),
        }
        .checked()
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = base64_encode(self.root.as_bytes());
        writeln!(f, "{}\n{}\n{root}", self.origin, self.size)?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}
