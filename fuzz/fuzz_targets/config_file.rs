//! Configuration files: whatever they are, they are read or refused, and every problem has a place within the file.
#![no_main]

use evenkeel_config::File;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Err(errors) = File::parse("f.toml", text) else { return };
    assert!(!errors.problems.is_empty());
    let lines = text.matches('\n').count() + 1;
    assert!(errors.problems.iter().filter_map(|problem| problem.at).all(|(line, column)| {
        (1..=lines).contains(&line) && column >= 1
    }));
});
