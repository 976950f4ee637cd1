//! Finds the name that somebody meant who mistyped it.

/// From this likeness on two names may be meant to be the same.
const ALIKE: f64 = 0.8;
/// Longer words than any name are like none, and cost nothing to compare.
const LONGEST: usize = 64;

/// How much two names look alike, from 0 to 1; capital letters count as small ones.
pub(crate) fn likeness(a: &str, b: &str) -> f64 {
    if a.len().max(b.len()) > LONGEST {
        return 0.0;
    }
    strsim::jaro_winkler(&a.to_lowercase(), &b.to_lowercase())
}

/// What was most likely meant, if anything was, of candidates and their [`likeness`].
pub(crate) fn nearest<T>(candidates: impl IntoIterator<Item = (f64, T)>) -> Option<T> {
    candidates
        .into_iter()
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .map(|(_, candidate)| candidate)
}
