//! What is measured, and what many measurements come to.

/// Reads what the allocator has counted, in the program that counts.
pub type Counted = fn() -> stats_alloc::Stats;

/// The middle of `values`, of which there must be at least one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
