//! Moments as RFC 3339 has them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// This moment, to the millisecond.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    moment(seconds).replace('Z', &format!(".{:03}Z", since.subsec_millis()))
}

/// The moment so many seconds after 1970 began, to the second.
pub(super) fn moment(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970 began. Years are counted from March, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    /// From 1 March of year 0 to 1 January 1970.
    const SHIFT: i64 = 719_468;
    let days = days + SHIFT;
    let (era, day) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, shifted) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + shifted, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(-200_000);
        for day in -199_999..200_000 {
            let (year, month, first) = date(day);
            let follows = match before {
                (y, m, d) if (year, month) == (y, m) => first == d + 1,
                (y, m, d) => {
                    first == 1 && d >= 28 && ((year, month) == (y, m + 1) || (year, month, m) == (y + 1, 1, 12))
                }
            };
            assert!(follows, "{before:?} then {:?}", (year, month, first));
            before = (year, month, first);
        }
    }
}
