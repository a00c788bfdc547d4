//! `crate::sync` as the product's sources have it, of loom's primitives.

pub(crate) use std::sync::PoisonError;

pub(crate) use lock::{Mutex, MutexGuard};

/// loom's own locks are fences too, which real ones are not.
mod lock {
    use std::{
        ops::{Deref, DerefMut},
        sync,
    };

    use loom::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        locked: AtomicBool,
        value: sync::Mutex<T>,
    }

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        locked: &'a AtomicBool,
        value: Option<sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> sync::LockResult<MutexGuard<'_, T>> {
            while self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
                thread::yield_now();
            }
            Ok(MutexGuard { locked: &self.locked, value: Some(self.value.lock().unwrap()) })
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.value.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().unwrap()
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.value = None;
            self.locked.store(false, Ordering::Release);
        }
    }
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    use loom::sync::atomic::fence;

    /// loom takes sequentially consistent accesses for acquire and release, but knows the fences. Here such an access comes
    /// after one, as some machines have it: that orders it after all before it, and no access of another kind after it.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicUsize(loom::sync::atomic::AtomicUsize);

    impl AtomicUsize {
        pub(crate) fn new(value: usize) -> Self {
            Self(loom::sync::atomic::AtomicUsize::new(value))
        }

        pub(crate) fn load(&self, ordering: Ordering) -> usize {
            fenced(ordering, || self.0.load(weaker(ordering, Ordering::Acquire)))
        }

        pub(crate) fn store(&self, value: usize, ordering: Ordering) {
            fenced(ordering, || self.0.store(value, weaker(ordering, Ordering::Release)));
        }

        pub(crate) fn fetch_sub(&self, value: usize, ordering: Ordering) -> usize {
            fenced(ordering, || self.0.fetch_sub(value, weaker(ordering, Ordering::AcqRel)))
        }

        /// As in std: a load, which may be of an old value, and then an exchange. loom's own reads the newest.
        pub(crate) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            mut update: impl FnMut(usize) -> Option<usize>,
        ) -> Result<usize, usize> {
            let mut present = self.load(fetch);
            while let Some(next) = update(present) {
                let (set, fetch) = (weaker(set, Ordering::AcqRel), weaker(fetch, Ordering::Acquire));
                match self.0.compare_exchange(present, next, set, fetch) {
                    Ok(before) => return Ok(before),
                    Err(newer) => present = newer,
                }
            }
            Err(present)
        }
    }

    fn weaker(ordering: Ordering, weaker: Ordering) -> Ordering {
        if ordering == Ordering::SeqCst { weaker } else { ordering }
    }

    fn fenced<T>(ordering: Ordering, access: impl FnOnce() -> T) -> T {
        if ordering == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
        access()
    }
}

/// As tokio's, for what a line of calls needs of it.
pub(crate) mod oneshot {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use loom::sync::{Arc, Mutex};

    #[derive(Debug, Default)]
    struct Shared {
        sent: bool,
        sender_gone: bool,
        receiver_gone: bool,
        waker: Option<Waker>,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Mutex<Shared>>, std::marker::PhantomData<T>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Mutex<Shared>>, std::marker::PhantomData<T>);

    pub(crate) fn channel() -> (Sender<()>, Receiver<()>) {
        let shared = Arc::new(Mutex::new(Shared::default()));
        (Sender(Arc::clone(&shared), std::marker::PhantomData), Receiver(shared, std::marker::PhantomData))
    }

    impl Sender<()> {
        pub(crate) fn send(self, (): ()) -> Result<(), ()> {
            let mut shared = self.0.lock().unwrap();
            if shared.receiver_gone {
                return Err(());
            }
            shared.sent = true;
            let waker = shared.waker.take();
            drop(shared);
            waker.into_iter().for_each(Waker::wake);
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let mut shared = self.0.lock().unwrap();
            shared.sender_gone = true;
            let waker = shared.waker.take();
            drop(shared);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl Future for Receiver<()> {
        type Output = Result<(), ()>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut shared = self.0.lock().unwrap();
            if shared.sent {
                return Poll::Ready(Ok(()));
            }
            if shared.sender_gone {
                return Poll::Ready(Err(()));
            }
            shared.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.lock().unwrap().receiver_gone = true;
        }
    }
}
