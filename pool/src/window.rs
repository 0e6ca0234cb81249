//! Parts of the week by the clock on a wall: which of a pool's windows are open.

use domain::Window;
use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

/// The zone of a window. The configuration has checked the name; were it unknown, UTC is better than no window.
fn zone(window: &Window) -> TimeZone {
    TimeZone::get(&window.zone).unwrap_or(TimeZone::UTC)
}

/// Whether a window is open at this moment, by the clock and calendar of its own zone: when the clocks change it is
/// an hour longer or shorter, never an hour late.
pub(crate) fn is_open(window: &Window, at: Timestamp) -> bool {
    let local = zone(window).to_datetime(at);
    let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
    let today = on(window, local.date().weekday());
    if window.from < window.to {
        return today && (window.from..window.to).contains(&minute);
    }
    // Over midnight: the part before it belongs to today, the part after it to the day on which it began.
    let begun_yesterday = on(window, local.date().weekday().previous());
    (today && minute >= window.from) || (begun_yesterday && minute < window.to)
}

fn on(window: &Window, day: Weekday) -> bool {
    usize::try_from(day.to_monday_zero_offset()).ok().and_then(|d| window.days.get(d)).is_some_and(|on| *on)
}

/// The moment that the clock on the wall showed the same `weeks` ago.
pub(crate) fn weeks_before(at: Timestamp, weeks: i64, zone: &TimeZone) -> Timestamp {
    let days = jiff::Span::new().days(weeks * 7);
    let there = at.to_zoned(zone.clone()).checked_sub(days);
    there.map_or_else(|_| Timestamp::MIN, |z| z.timestamp())
}

/// The zone that a repo's people live by, as far as the policy tells it.
pub(crate) fn zone_of(windows: &[Window]) -> TimeZone {
    windows.first().map_or(TimeZone::UTC, zone)
}

/// `mon-fri 08:00-19:00 Europe/Berlin`, as one would write it.
pub(crate) fn words(window: &Window) -> String {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let on: Vec<usize> = (0..7).filter(|d| window.days[*d]).collect();
    let in_a_row = on.windows(2).all(|w| w[1] == w[0] + 1);
    let days = match on.as_slice() {
        [first, .., last] if in_a_row && on.len() > 2 => format!("{}-{}", DAYS[*first], DAYS[*last]),
        days => days.iter().map(|d| DAYS[*d]).collect::<Vec<_>>().join(","),
    };
    let clock = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
    format!("{days} {}-{} {}", clock(window.from), clock(window.to), window.zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[usize], from: u16, to: u16) -> Window {
        let mut on = [false; 7];
        days.iter().for_each(|d| on[*d] = true);
        Window { days: on, from, to, zone: "Europe/Berlin".into(), min: 4 }
    }

    fn open(w: &Window, local: &str) -> bool {
        let zoned = format!("{local}[Europe/Berlin]").parse::<jiff::Zoned>().unwrap();
        is_open(w, zoned.timestamp())
    }

    #[test]
    fn a_working_day_by_the_clock_of_its_zone() {
        let w = window(&[0, 1, 2, 3, 4], 8 * 60, 19 * 60);
        for (local, expected) in [
            ("2026-11-20T07:59:59", false),
            ("2026-11-20T08:00:00", true),
            ("2026-11-20T18:59:59", true),
            ("2026-11-20T19:00:00", false),
            ("2026-11-21T12:00:00", false),
        ] {
            assert_eq!(open(&w, local), expected, "{local}");
        }
        assert_eq!(words(&w), "mon-fri 08:00-19:00 Europe/Berlin");
    }

    /// Both changes of the clocks: it opens at eight by the wall on the days before and after.
    #[test]
    fn it_opens_by_the_wall_when_the_clocks_change() {
        let w = window(&[0, 1, 2, 3, 4, 5, 6], 8 * 60, 19 * 60);
        for day in ["2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25"] {
            assert!(!open(&w, &format!("{day}T07:59:00")) && open(&w, &format!("{day}T08:00:00")), "{day}");
        }
        // Half past two does not come in spring, and comes twice in autumn.
        let night = window(&[6], 2 * 60 + 15, 2 * 60 + 45);
        let minutes = |from: &str| {
            let from: Timestamp = from.parse().unwrap();
            (0..180).filter(|m| is_open(&night, from + jiff::SignedDuration::from_mins(*m))).count()
        };
        assert_eq!(minutes("2026-03-29T00:00:00Z"), 0);
        assert_eq!(minutes("2026-10-24T23:30:00Z"), 60);
    }

    #[test]
    fn over_midnight_it_belongs_to_the_day_it_began_on() {
        let w = window(&[4], 22 * 60, 6 * 60);
        assert!(open(&w, "2026-11-20T22:00:00") && open(&w, "2026-11-21T05:59:00"));
        assert!(!open(&w, "2026-11-20T05:59:00") && !open(&w, "2026-11-21T22:00:00"));
        assert_eq!(words(&w), "fri 22:00-06:00 Europe/Berlin");
    }

    #[test]
    fn weeks_are_counted_by_the_wall() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let nine = "2026-10-27T09:00:00[Europe/Berlin]".parse::<jiff::Zoned>().unwrap().timestamp();
        let before = weeks_before(nine, 1, &zone).to_zoned(zone.clone());
        assert_eq!((before.hour(), before.day()), (9, 20), "summer time then");
        assert_eq!(weeks_before(nine, 1, &TimeZone::UTC), nine - jiff::SignedDuration::from_hours(168));
    }
}
