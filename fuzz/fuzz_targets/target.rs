//! A target that parses prints as one that parses to the same, and has an authority.
#![no_main]

use evenkeel_naming::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(target) = text.parse::<Target>() {
        assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(&target));
        assert!(!target.authority().is_empty());
    }
});
