//! Where the tiles of a log are (C2SP tlog-tiles): paths below the log's prefix, and tiles as bytes.

use crate::Error;
use crate::encoding::decimal;
use merkle_tree::{HASH_SIZE, Hash, MAX_SIZE, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use std::fmt;
use std::str::FromStr;

/// The path of a tile or an entry bundle.
///
/// ```
/// use tlog::{TileLevel, TilePath};
///
/// let path: TilePath = "tile/0/x001/x234/067.p/8".parse()?;
/// assert_eq!((path.level(), path.index(), path.width()), (TileLevel::Hashes(0), 1_234_067, 8));
/// assert_eq!(path.to_string(), "tile/0/x001/x234/067.p/8");
/// assert_eq!(TilePath::new(TileLevel::Entries, 5, 256)?.to_string(), "tile/entries/005");
/// # Ok::<(), tlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    level: TileLevel,
    index: u64,
    width: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileLevel {
    /// Entry bundles, which lie as the tiles of level 0 do.
    Entries,
    Hashes(u8),
}

const MAX_LEVEL: u8 = 63;

impl TilePath {
    /// A full tile has width 256, a partial one 1 to 255.
    ///
    /// # Errors
    /// If there is no such tile.
    pub fn new(level: TileLevel, index: u64, width: u16) -> Result<TilePath, Error> {
        if matches!(level, TileLevel::Hashes(level) if level > MAX_LEVEL) {
            return Err(Error::TilePath("the level is above 63"));
        }
        if index > MAX_SIZE {
            return Err(Error::TilePath("the index is beyond the largest tree"));
        }
        if !(1..=TILE_WIDTH).contains(&u64::from(width)) {
            return Err(Error::TilePath("the width is not 1 to 256"));
        }
        Ok(TilePath {
            level,
            index,
            width,
        })
    }

    pub fn level(&self) -> TileLevel {
        self.level
    }

    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds.
    pub fn width(&self) -> u16 {
        self.width
    }

    pub fn is_partial(&self) -> bool {
        u64::from(self.width) < TILE_WIDTH
    }

    /// The tile without its width, if it is one of hashes.
    pub fn tile(&self) -> Option<TileId> {
        match self.level {
            TileLevel::Entries => None,
            TileLevel::Hashes(level) => Some(TileId {
                level,
                index: self.index,
            }),
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            TileLevel::Entries => f.write_str("tile/entries")?,
            TileLevel::Hashes(level) => write!(f, "tile/{level}")?,
        }
        let groups = self.index.checked_ilog(1000).unwrap_or(0);
        for group in (1..=groups).rev() {
            write!(f, "/x{:03}", self.index / 1000u64.pow(group) % 1000)?;
        }
        write!(f, "/{:03}", self.index % 1000)?;
        match self.is_partial() {
            true => write!(f, ".p/{}", self.width),
            false => Ok(()),
        }
    }
}

impl FromStr for TilePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<TilePath, Error> {
        let form = Error::TilePath("it has not the form tile/<level>/<index>[.p/<width>]");
        let (level, rest) = text
            .strip_prefix("tile/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(form.clone())?;
        let level = match (level, decimal(level)) {
            ("entries", _) => TileLevel::Entries,
            (_, Some(level)) => TileLevel::Hashes(u8::try_from(level).unwrap_or(u8::MAX)),
            _ => return Err(form),
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((index, width)) => match decimal(width) {
                Some(width) if width < TILE_WIDTH => (index, width),
                _ => {
                    return Err(Error::TilePath(
                        "the width of a partial tile is not 1 to 255",
                    ));
                }
            },
        };
        let index = index.split('/').try_fold(0u64, |index, group| {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let group: u64 = digits.parse().ok().filter(|group| *group < 1000)?;
            index.checked_mul(1000)?.checked_add(group)
        });
        let path = TilePath::new(level, index.ok_or(form.clone())?, width as u16)?;
        // One path has one form: neither "x000/001" nor "1" is tile 1.
        match path.to_string() == text {
            true => Ok(path),
            false => Err(form),
        }
    }
}

/// All tiles of hashes and all entry bundles of a tree, level by level, entries first.
pub fn tiles_of(size: TreeSize) -> impl Iterator<Item = TilePath> {
    let levels = (0..=7u8).map(TileLevel::Hashes);
    std::iter::once(TileLevel::Entries)
        .chain(levels)
        .flat_map(move |level| {
            let height = match level {
                TileLevel::Entries => 0,
                TileLevel::Hashes(level) => u32::from(level) * TILE_HEIGHT,
            };
            let hashes = size.get() >> height;
            (0..hashes.div_ceil(TILE_WIDTH)).map(move |index| TilePath {
                level,
                index,
                width: (hashes - index * TILE_WIDTH).min(TILE_WIDTH) as u16,
            })
        })
}

/// The hashes of a tile.
///
/// # Errors
/// If the bytes are not `width` hashes.
pub fn tile_from_bytes(bytes: &[u8], width: u16) -> Result<Vec<Hash>, Error> {
    let (hashes, []) = bytes.as_chunks::<HASH_SIZE>() else {
        return Err(Error::Tile("its length is not a multiple of 32"));
    };
    match hashes.len() == usize::from(width) {
        true => Ok(hashes.iter().map(|hash| Hash::from(*hash)).collect()),
        false => Err(Error::Tile("its length is not its width")),
    }
}

/// The inverse of [`tile_from_bytes`].
pub fn tile_to_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}
