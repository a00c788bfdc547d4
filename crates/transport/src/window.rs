/// Finds how large a stream's window must be for the path to stay full: what comes in while a PING is on its way is the
/// product of bandwidth and delay, so a window that is nearly used up by it is too small.
///
/// ```text
///   data came ──► PING ──► its answer: at least two thirds of the window came meanwhile? ──► twice that is the window
/// ```
///
/// Servers count PINGs between their own frames; one that follows data is none that they mind.
#[derive(Debug)]
pub(crate) struct AdaptiveWindow {
    size: u32,
    /// It grows no further; not at all where this is no more than what it begins with.
    most: u32,
    /// What had been received when the PING was sent that is under way.
    asked_at: Option<u64>,
    /// What must have been received before the next one.
    next_at: u64,
    /// Answers in a row that left the window as it is.
    fruitless: u32,
}

impl AdaptiveWindow {
    pub(crate) fn new(size: u32, most: u32) -> Self {
        Self { size, most, asked_at: None, next_at: 1, fruitless: 0 }
    }

    /// Whether to send a PING, now that so many bytes have been received in all.
    pub(crate) fn wants_ping(&self, received: u64) -> bool {
        self.size < self.most && self.asked_at.is_none() && received >= self.next_at
    }

    /// The PING has been sent.
    pub(crate) fn asked(&mut self, received: u64) {
        self.asked_at = Some(received);
    }

    /// The PING, if it was this one's, has been answered: the new size, where the old one is too small.
    pub(crate) fn answered(&mut self, received: u64) -> Option<u32> {
        let came = received - self.asked_at.take()?;
        if came < u64::from(self.size) / 3 * 2 {
            self.fruitless = (self.fruitless + 1).min(MOST_FRUITLESS);
            // A path that is no longer than this is asked about ever more rarely.
            self.next_at = received + (u64::from(self.size) << self.fruitless);
            return None;
        }
        (self.fruitless, self.next_at) = (0, received + 1);
        self.size = u32::try_from(came * 2).unwrap_or(u32::MAX).clamp(self.size, self.most);
        Some(self.size)
    }
}

/// Where the pauses stop growing: 64 windows.
const MOST_FRUITLESS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 512 * 1024;

    /// Receives for as long as `round_trips` at `bytes` a round trip, or at what the window lets through.
    fn run(window: &mut AdaptiveWindow, bytes: u64, round_trips: usize) -> (u32, usize) {
        let (mut received, mut size, mut pings) = (0, START, 0);
        for _ in 0..round_trips {
            received += 1;
            let asks = window.wants_ping(received);
            if asks {
                window.asked(received);
                pings += 1;
            }
            received += bytes.min(u64::from(size));
            if asks {
                size = window.answered(received).unwrap_or(size);
            }
        }
        (size, pings)
    }

    #[test]
    fn a_long_fat_path_gets_a_window_that_it_does_not_fill() {
        let bytes = 6 * 1024 * 1024;
        let (size, _) = run(&mut AdaptiveWindow::new(START, 16 * 1024 * 1024), bytes, 20);
        assert!(u64::from(size) * 2 / 3 >= bytes && size <= 16 * 1024 * 1024, "{size}");
    }

    #[test]
    fn a_window_never_grows_beyond_its_bound_nor_shrinks() {
        let (size, _) = run(&mut AdaptiveWindow::new(START, 2 * 1024 * 1024), u64::MAX / 64, 20);
        assert_eq!(size, 2 * 1024 * 1024);
        assert_eq!(run(&mut AdaptiveWindow::new(START, START), u64::MAX / 64, 20), (START, 0), "it is off");
    }

    #[test]
    fn a_short_path_keeps_its_window_and_is_rarely_asked_about() {
        let (size, pings) = run(&mut AdaptiveWindow::new(START, 16 * 1024 * 1024), 10_000, 10_000);
        assert!(size == START && pings < 10, "{size} after {pings} PINGs");
    }

    #[test]
    fn the_answer_to_anothers_ping_says_nothing() {
        let mut window = AdaptiveWindow::new(START, 2 * START);
        assert_eq!(window.answered(u64::from(START)), None);
        assert!(window.wants_ping(1));
    }
}
