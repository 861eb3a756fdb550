//! Finding columns again in a table that was restored from a dump, where their numbers are others.
//!
//! A dump keeps the order of the columns that there were, and their names. What was put on record may be older
//! than the dump: columns may have been renamed, dropped or added in between. Name and order together tell
//! which is which; where they contradict each other, or leave a choice, nothing is guessed.

/// For each of `recorded` names, its place among the names `now`, if it is certain.
///
/// `complete`: `recorded` were all there were, so that what stands between two known ones was there before them
/// both, and what was added since stands at the end.
pub fn bind(recorded: &[String], now: &[String], complete: bool) -> Vec<Option<usize>> {
    let by_name: Vec<Option<usize>> = recorded
        .iter()
        .map(|name| now.iter().position(|n| n == name))
        .collect();
    let mut bound = without_contradictions(&by_name);
    if complete {
        renamed_in_between(recorded, now, &mut bound);
    }
    bound
}

/// Leaves out what was found by its name in another order than it had.
fn without_contradictions(by_name: &[Option<usize>]) -> Vec<Option<usize>> {
    let crosses = |a: usize, b: usize| match (by_name[a], by_name[b]) {
        (Some(x), Some(y)) => (a < b) != (x < y),
        _ => false,
    };
    let mut bound = by_name.to_vec();
    loop {
        let count = |a: usize| {
            let all = 0..by_name.len();
            let others = all.filter(|b| *b != a && bound[a].is_some() && bound[*b].is_some());
            // Of two that contradict each other, one that stands exactly where it stood is believed.
            let moved = usize::from(by_name[a] != Some(a));
            (others.filter(|b| crosses(a, *b)).count(), moved)
        };
        let counts: Vec<(usize, usize)> = (0..by_name.len()).map(count).collect();
        let Some(worst) = counts.iter().filter(|(n, _)| *n > 0).max().copied() else {
            return bound;
        };
        for (place, count) in counts.iter().enumerate() {
            if *count == worst {
                bound[place] = None;
            }
        }
    }
}

/// Finds those that have got another name: as many as there are unknown names in the same gap, none of which is
/// the name of another.
fn renamed_in_between(recorded: &[String], now: &[String], bound: &mut [Option<usize>]) {
    let known: Vec<(usize, usize)> = bound
        .iter()
        .enumerate()
        .filter_map(|(place, now)| Some((place, (*now)?)))
        .collect();
    let mut from = (0, 0);
    for (place, now_place) in known {
        let (old, new) = (from.0..place, from.1..now_place);
        let renamed = old.len() == new.len()
            && recorded[old.clone()].iter().all(|name| !now.contains(name))
            && now[new.clone()].iter().all(|name| !recorded.contains(name));
        if renamed {
            for (place, now_place) in old.zip(new) {
                bound[place] = Some(now_place);
            }
        }
        from = (place + 1, now_place + 1);
    }
}
