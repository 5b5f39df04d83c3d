//! Hours of the day in which a user may be connected.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use super::claims::TimeRange;

/// Whether now is within one of the ranges, and when that one ends. No ranges: always, and never.
pub(super) fn allowed(ranges: &[TimeRange], location: &str, now: Timestamp) -> Result<Option<Timestamp>, String> {
    if ranges.is_empty() {
        return Ok(None);
    }
    let zone = if location.is_empty() {
        TimeZone::system()
    } else {
        TimeZone::get(location).map_err(|_| format!("its time zone {location:?} is not known"))?
    };
    let now = now.to_zoned(zone);
    for range in ranges {
        let time = |text: &str| text.parse::<Time>().map_err(|_| format!("{text:?} is no time of the day"));
        let (start, end) = (time(&range.start)?, time(&range.end)?);
        if let Some(until) = end_of(&now, start, end) {
            return Ok(Some(until));
        }
    }
    Err("it does not count at this time of the day".to_owned())
}

/// The end of a range that contains `now`; a range may go over midnight.
fn end_of(now: &Zoned, start: Time, end: Time) -> Option<Timestamp> {
    let time = now.time();
    let (is_inside, days) = if start <= end {
        (start <= time && time < end, 0)
    } else {
        (time >= start || time < end, i64::from(time >= start))
    };
    if !is_inside {
        return None;
    }
    let day = now.date().checked_add(days.days()).ok()?;
    Some(day.to_datetime(end).to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> TimeRange {
        TimeRange { start: start.to_owned(), end: end.to_owned() }
    }

    #[test]
    fn ranges_are_of_the_day_in_their_zone() {
        let now: Timestamp = "2026-07-01T09:30:00Z".parse().unwrap();
        for (ranges, zone, until) in [
            (vec![], "", Ok(None)),
            (vec![range("09:00:00", "10:00:00")], "UTC", Ok(Some("2026-07-01T10:00:00Z"))),
            (
                vec![range("08:00:00", "09:30:00"), range("09:30:00", "09:31:00")],
                "UTC",
                Ok(Some("2026-07-01T09:31:00Z")),
            ),
            (vec![range("11:00:00", "12:00:00")], "Europe/Berlin", Ok(Some("2026-07-01T10:00:00Z"))),
            (vec![range("22:00:00", "10:00:00")], "UTC", Ok(Some("2026-07-01T10:00:00Z"))),
            (vec![range("09:00:00", "02:00:00")], "UTC", Ok(Some("2026-07-02T02:00:00Z"))),
            (vec![range("10:00:00", "09:00:00")], "UTC", Err("it does not count at this time of the day")),
            (vec![range("x", "09:00:00")], "UTC", Err("\"x\" is no time of the day")),
            (vec![range("09:00:00", "10:00:00")], "Mars/North", Err("its time zone \"Mars/North\" is not known")),
        ] {
            let found = allowed(&ranges, zone, now);
            let found = found.map(|until| until.map(|until| until.to_string()));
            assert_eq!(found, until.map(|until| until.map(str::to_owned)).map_err(str::to_owned), "{ranges:?} {zone}");
        }
    }
}
