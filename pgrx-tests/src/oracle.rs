//! RFC 6962 §2.1 word for word, recursive and slow: it shares nothing with the project's trees.

use crate::{Client, column};
use sha2::{Digest, Sha256};

pub type Hash = Vec<u8>;

fn node(left: &[u8], right: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .to_vec()
}

/// The largest power of two smaller than `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// MTH over leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest(b"").to_vec(),
        [leaf] => leaf.clone(),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The root that an audit path leads to (§2.1.1), or `None` if it has the wrong length.
pub fn root_from_path(leaf: &[u8], index: usize, size: usize, path: &[Hash]) -> Option<Hash> {
    let Some((last, rest)) = path.split_last() else {
        return (size == 1).then(|| leaf.to_vec());
    };
    if size == 1 {
        return None;
    }
    let k = split(size);
    if index < k {
        Some(node(&root_from_path(leaf, index, k, rest)?, last))
    } else {
        Some(node(
            last,
            &root_from_path(leaf, index - k, size - k, rest)?,
        ))
    }
}

/// The roots at `old` and `new` that a consistency path leads to (§2.1.2).
pub fn roots_from_path(
    old: usize,
    new: usize,
    path: &[Hash],
    old_root: &[u8],
) -> Option<(Hash, Hash)> {
    fn sub(
        m: usize,
        n: usize,
        whole: bool,
        path: &[Hash],
        old_root: &[u8],
    ) -> Option<(Hash, Hash)> {
        if m == n {
            return match (whole, path) {
                (true, []) => Some((old_root.to_vec(), old_root.to_vec())),
                (false, [hash]) => Some((hash.clone(), hash.clone())),
                _ => None,
            };
        }
        let (last, rest) = path.split_last()?;
        let k = split(n);
        if m <= k {
            let (old, new) = sub(m, k, whole, rest, old_root)?;
            Some((old, node(&new, last)))
        } else {
            let (old, new) = sub(m - k, n - k, false, rest, old_root)?;
            Some((node(last, &old), node(last, &new)))
        }
    }
    sub(old, new, true, path, old_root)
}

/// True if the proof that the log gives between two recorded roots holds.
pub fn consistent(client: &mut Client, log: &str, old: (i64, Hash), new: (i64, Hash)) -> bool {
    let sql = "SELECT path FROM consistency_proof($1, $2, $3)";
    let path: Vec<Hash> = client
        .query_one(sql, &[&log, &old.0, &new.0])
        .unwrap()
        .get(0);
    if old.0 == 0 || old.0 == new.0 {
        return path.is_empty() && (old.0 == 0 || old.1 == new.1);
    }
    roots_from_path(old.0 as usize, new.0 as usize, &path, &old.1) == Some((old.1, new.1))
}

/// The leaf hashes of a log, in order, as anyone may read them.
pub fn leaves(client: &mut Client, log: &str) -> Vec<Hash> {
    let quoted = log.replace('\'', "''");
    column(
        client,
        &format!(
            "SELECT leaf_hash FROM merkle_log JOIN verification_logs USING (log_id)
              WHERE log_name = '{quoted}' ORDER BY leaf_index"
        ),
    )
}
