//! The resolver of `file:` targets on real files. No test sleeps: each waits for an outcome.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use evenkeel_naming::{FailureKind, Options, Outcome, ResolveError, Resolving, Target, start};

const ONE: &str = r#"{"endpoints": [{"address": "10.0.0.1:80"}]}"#;
const TWO: &str = r#"{"endpoints": [{"address": "10.0.0.2:80"}]}"#;

/// A directory that is gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evenkeel-naming-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("endpoints.json")
    }

    /// Puts another file in the place of the first, as careful writers do.
    fn replace(&self, json: &str) {
        let new = self.0.join("new");
        fs::write(&new, json).unwrap();
        fs::rename(new, self.file()).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn resolve(file: &Path) -> Resolving {
    let mut options = Options::default();
    options.file_interval = Duration::from_millis(5);
    let target: Target = format!("file://{}", file.display()).parse().unwrap();
    start(target.resolver(&options))
}

fn endpoints(outcome: Option<Outcome>) -> Vec<String> {
    outcome.expect("still resolving").expect("a resolution").endpoints.iter().map(ToString::to_string).collect()
}

fn failure(outcome: Option<Outcome>) -> ResolveError {
    outcome.expect("still resolving").expect_err("a failure")
}

#[tokio::test]
async fn a_file_is_read_again_when_it_is_replaced_or_written_over() {
    let dir = Dir::new();
    dir.replace(ONE);
    let mut resolving = resolve(&dir.file());
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
    dir.replace(TWO);
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80"]);
    // Of the same length, and perhaps within one step of the file system's clock.
    fs::write(dir.file(), ONE).unwrap();
    let mut outcome = resolving.next().await;
    // Writing over is not atomic: the file is empty for a moment.
    if outcome.as_ref().is_some_and(Result::is_err) {
        outcome = resolving.next().await;
    }
    assert_eq!(endpoints(outcome), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_file_that_was_settled_when_it_was_read_is_read_again_when_it_changes() {
    let dir = Dir::new();
    dir.replace(ONE);
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(dir.file()).unwrap().set_modified(long_ago).unwrap();
    let mut resolving = resolve(&dir.file());
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
    dir.replace(TWO);
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn a_file_that_is_missing_half_written_or_wrong_is_an_error_that_names_it_and_ends_with_the_next_good_one() {
    let dir = Dir::new();
    let mut resolving = resolve(&dir.file());
    let missing = failure(resolving.next().await);
    assert_eq!(missing.kind, FailureKind::NotFound);
    let name = format!("`{}`", dir.file().display());
    assert!(missing.message.contains(&name), "{missing}");
    for (bad, says) in [
        ("", "at line 1 column 0"),
        (&ONE[..20], "at line 1 column 20"),
        ("{\"endpoints\": [\n{\"adress\": \"10.0.0.1:80\"}]}", "did you mean `address`? at line 2 column 9"),
    ] {
        dir.replace(ONE);
        assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
        dir.replace(bad);
        let error = failure(resolving.next().await);
        assert_eq!(error.kind, FailureKind::Invalid);
        assert!(error.message.contains(&name) && error.message.contains(says), "{error}");
    }
    fs::remove_file(dir.file()).unwrap();
    assert_eq!(failure(resolving.next().await).kind, FailureKind::NotFound);
    fs::create_dir(dir.file()).unwrap();
    assert!(failure(resolving.next().await).message.contains("it is no regular file"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_symbolic_link_that_is_switched_is_followed() {
    let dir = Dir::new();
    for (version, json) in [("v1", ONE), ("v2", TWO)] {
        fs::create_dir(dir.0.join(version)).unwrap();
        fs::write(dir.0.join(version).join("endpoints.json"), json).unwrap();
    }
    // As container platforms publish configuration: a link to a directory, replaced whole.
    let point_at = |version: &str| {
        std::os::unix::fs::symlink(version, dir.0.join("next")).unwrap();
        fs::rename(dir.0.join("next"), dir.0.join("current")).unwrap();
    };
    point_at("v1");
    let mut resolving = resolve(&dir.0.join("current/endpoints.json"));
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.1:80"]);
    point_at("v2");
    assert_eq!(endpoints(resolving.next().await), ["10.0.0.2:80"]);
}
