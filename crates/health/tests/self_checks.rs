//! Self-checks in tokio's paused time.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_health::ServingStatus::{NotServing, Serving, Unknown};
use evenkeel_health::self_check::{CheckVerdict, SelfCheck, SelfCheckError, needs, reports};
use evenkeel_health::{Reporter, ServingStatus, service};
use tokio::time::{Instant, sleep};

/// Something that is well or not, and how often that was asked.
#[derive(Clone, Default)]
struct Thing {
    broken: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Thing {
    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn check(&self) -> SelfCheck {
        let thing = self.clone();
        SelfCheck::new(move || {
            thing.asked.fetch_add(1, Ordering::Relaxed);
            let broken = thing.broken.load(Ordering::Relaxed);
            std::future::ready(if broken { Err("it is broken") } else { Ok(()) })
        })
    }
}

/// Lets time pass until it is so.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn shows(reporter: &Reporter, service: &str, status: ServingStatus) {
    until(|| reporter.status(service) == status).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_serves_only_while_what_it_needs_is_well() -> Result<(), SelfCheckError> {
    let ((reporter, _health), database, cache) = (service(), Thing::default(), Thing::default());
    let database_check = database.check().every(Duration::from_secs(5)).fall(3).rise(2);
    let _running = reporter
        .self_checks()
        .check("database", database_check)
        .check("cache", cache.check())
        .service_named("a.B", needs(["database"]).reports(["cache"]))
        .service_named("a.C", reports(["database"]))
        .start()?;
    assert_eq!(["", "a.B", "a.C"].map(|name| reporter.status(name)), [Unknown, Unknown, Serving]);
    shows(&reporter, "a.B", Serving).await;
    assert_eq!(reporter.status(""), Serving);

    cache.set_broken(true);
    until(|| reporter.explain().to_string().contains("service \"a.B\": SERVING, degraded by cache")).await;
    let (begin, asked) = (Instant::now(), database.asked());
    database.set_broken(true);
    shows(&reporter, "a.B", NotServing).await;
    assert_eq!((reporter.status(""), reporter.status("a.C")), (NotServing, Serving));
    assert_eq!(database.asked() - asked, 3);
    assert!(begin.elapsed() < Duration::from_secs(9), "an interval, and then one second each");
    let explained = reporter.explain().to_string();
    assert!(explained.contains("service \"a.B\": NOT_SERVING, held by database, degraded by cache"), "{explained}");
    assert!(explained.contains("3 probes in a row failed, the last one: it is broken"), "{explained}");

    database.set_broken(false);
    let asked = database.asked();
    shows(&reporter, "a.B", Serving).await;
    assert_eq!(database.asked() - asked, 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_set_by_hand_wins_where_it_is_worse() -> Result<(), SelfCheckError> {
    let ((reporter, _health), thing) = (service(), Thing::default());
    reporter.set("a.B", NotServing);
    let running =
        reporter.self_checks().check("thing", thing.check()).service_named("a.B", needs(["thing"])).start()?;
    shows(&reporter, "", Serving).await;
    assert_eq!(reporter.status("a.B"), NotServing);
    assert!(reporter.explain().to_string().contains("service \"a.B\": NOT_SERVING, set to NOT_SERVING by hand"));
    reporter.set("a.B", Serving);
    assert_eq!(reporter.status("a.B"), Serving);
    thing.set_broken(true);
    shows(&reporter, "a.B", NotServing).await;
    reporter.set("a.B", Serving);
    assert_eq!(reporter.status("a.B"), NotServing, "its checks hold it");
    drop(running);
    assert_eq!(reporter.status("a.B"), Serving, "nobody looks after it any more");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn checks_that_hang_or_panic_fail() -> Result<(), SelfCheckError> {
    let (reporter, _health) = service();
    let hangs = SelfCheck::new(pending::<Result<(), String>>).timeout(Duration::from_secs(2));
    let panics = SelfCheck::new(|| async { Err::<(), String>(panic_with("a bug")) });
    let begin = Instant::now();
    let _running = reporter
        .self_checks()
        .check("hangs", hangs)
        .check("panics", panics)
        .service_named("a.H", needs(["hangs"]))
        .service_named("a.P", needs(["panics"]))
        .start()?;
    shows(&reporter, "a.P", NotServing).await;
    assert_eq!((reporter.status("a.H"), reporter.status("")), (Unknown, NotServing));
    shows(&reporter, "a.H", NotServing).await;
    assert_eq!(begin.elapsed().as_secs(), 2);
    let explained = reporter.explain().to_string();
    assert!(explained.contains("no answer in time") && explained.contains("panicked"), "{explained}");
    Ok(())
}

fn panic_with(what: &str) -> String {
    panic!("{what}")
}

#[tokio::test(start_paused = true)]
async fn checks_stop_with_their_handle_a_drain_or_the_reporter() -> Result<(), SelfCheckError> {
    let start = |reporter: &Reporter, thing: &Thing| reporter.self_checks().check("thing", thing.check()).start();
    let (reporter, health) = service();
    let [by_handle, by_drain, by_reporter] = [(); 3].map(|()| Thing::default());

    drop(start(&reporter, &by_handle)?);
    until(|| Arc::strong_count(&by_handle.asked) == 1).await;

    let _running = start(&reporter, &by_drain)?;
    until(|| by_drain.asked() > 1).await;
    reporter.begin_drain();
    until(|| Arc::strong_count(&by_drain.asked) == 1).await;
    assert_eq!(reporter.status(""), NotServing);

    let (other, other_health) = service();
    let _running = start(&other, &by_reporter)?;
    until(|| by_reporter.asked() > 1).await;
    drop((other, other_health));
    until(|| Arc::strong_count(&by_reporter.asked) == 1).await;
    drop(health);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_server_needs_what_its_services_need_or_what_is_said() -> Result<(), SelfCheckError> {
    let (one, two) = (Thing::default(), Thing::default());
    two.set_broken(true);
    for (server, expected) in [(None, NotServing), (Some(needs(["one"])), Serving), (Some(reports(["two"])), Serving)] {
        let (reporter, _health) = service();
        let checks = reporter.self_checks().check("one", one.check()).check("two", two.check());
        let checks = checks.service_named("a.B", needs(["one"])).service_named("a.C", needs(["two"]));
        let _running = match server {
            Some(needs) => checks.server(needs).start()?,
            None => checks.start()?,
        };
        shows(&reporter, "a.C", NotServing).await;
        shows(&reporter, "a.B", Serving).await;
        shows(&reporter, "", expected).await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn checks_that_do_not_fit_together_do_not_start() {
    let ((reporter, _health), thing) = (service(), Thing::default());
    let with = || reporter.self_checks().check("thing", thing.check());
    let refused = |checks: evenkeel_health::self_check::SelfChecks| checks.start().unwrap_err().to_string();
    assert!(refused(with().check("thing", thing.check())).contains("\"thing\""));
    assert!(refused(with().service_named("a.B", needs(["thng"]))).contains("\"thng\""));
    assert!(refused(with().server(reports(["x"])).service_named("a.B", needs(["thing"]))).contains("\"x\""));
    assert!(
        refused(with().service_named("a", needs(["thing"])).service_named("a", needs(["thing"]))).contains("twice")
    );
    assert!(refused(with().check("never", thing.check().fall(0))).contains("\"never\""));
    assert_eq!((reporter.status(""), thing.asked()), (Serving, 0), "nothing has changed");
    let _running = with().start().expect("it fits");
    assert_eq!(with().start().unwrap_err(), SelfCheckError::Running);
}

/// Closures that misbehave before they return a future, on threads of their own: time is not paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn checks_that_panic_or_block_before_their_first_await_fail_and_hold_one_thread_at_most()
-> Result<(), SelfCheckError> {
    let brief = Duration::from_millis(10);
    let (reporter, _health) = service();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let begun = Arc::new(AtomicUsize::new(0));
    let beats = Arc::new(AtomicUsize::new(0));
    let beat = beats.clone();
    let panics = SelfCheck::new(move || {
        beat.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<(), String>(panic_with("a bug")))
    });
    let count = begun.clone();
    let blocks = SelfCheck::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        // Blocks until the other end is dropped, and never again.
        let _ = released.recv();
        std::future::ready(Ok::<_, String>(()))
    });
    let _running = reporter
        .self_checks()
        .check("panics", panics.every(brief))
        .check("blocks", blocks.every(brief).timeout(brief))
        .service_named("a.P", needs(["panics"]))
        .service_named("a.B", needs(["blocks"]))
        .start()?;
    shows(&reporter, "a.P", NotServing).await;
    shows(&reporter, "a.B", NotServing).await;
    until(|| reporter.explain().checks.iter().all(|check| check.verdict == CheckVerdict::Unhealthy)).await;
    let before = beats.load(Ordering::Relaxed);
    until(|| beats.load(Ordering::Relaxed) > before + 20).await;
    assert_eq!(begun.load(Ordering::Relaxed), 1, "the first probe blocks still");
    drop(release);
    shows(&reporter, "a.B", Serving).await;
    Ok(())
}

#[test]
fn explaining_and_turning_at_once_do_not_wait_for_each_other() {
    let (reporter, _health) = service();
    let (done, ended) = std::sync::mpsc::channel();
    let (explained, finished) = (reporter.clone(), done.clone());
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            drop(explained.explain());
        }
        finished.send(())
    });
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        for _ in 0..2_000 {
            let checks = reporter.self_checks().check("thing", Thing::default().check());
            // Refused while an explanation still looks at the board of those before.
            drop(checks.service_named("a.B", needs(["thing"])).start());
        }
        done.send(())
    });
    for _ in 0..2 {
        ended.recv_timeout(Duration::from_secs(60)).expect("both threads end");
    }
}
