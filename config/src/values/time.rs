//! Schedules and windows: cron, days, hours, time zones.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use croner::parser::{CronParser, Seconds, Year};

use crate::de::Reason;
use crate::values::{Text, not, text_values};

/// A cron expression of five fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule(String);

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7)];

/// The expression that was found good last. Most repos share one, from `defaults` or ours, and to find out for each of a
/// thousand was a fifth of a start.
static FOUND_GOOD: Mutex<Option<Schedule>> = Mutex::new(None);

impl Schedule {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Schedule {
    const EXPECTED: &'static str = "five cron fields (minute, hour, day of month, month, day of week), such as \"*/30 * * * *\", or `@daily`";

    fn parse(text: &str) -> Result<Self, Reason> {
        if text.starts_with('@') {
            return match NICKNAMES.iter().find(|(name, _)| *name == text) {
                Some((_, fields)) => Ok(Self((*fields).to_owned())),
                None => Err(not(text, "a schedule")
                    .help("the short forms are @hourly, @daily, @weekly, @monthly, @yearly")),
            };
        }
        let wrong = || not(text, "a schedule");
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if fields.len() != 5 {
            return Err(Reason::new(format!("`{}` has {} fields", crate::error::clip(text), fields.len())));
        }
        for (field, (name, low, high)) in fields.iter().zip(FIELDS) {
            // The parser lets some of these pass: `5,,6`, `5-`, `/5`.
            check_field(field, low, high).map_err(|why| wrong().help(format!("{name} `{field}`: {why}")))?;
        }
        let text = fields.join(" ");
        let mut found_good = FOUND_GOOD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = found_good.as_ref().filter(|good| good.0 == text) {
            return Ok(same.clone());
        }
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(&text)
            .map_err(|e| wrong().help(e.to_string()))?;
        // Any fixed start will do: a schedule that is due in none of the years ahead is due never.
        let start = jiff::civil::date(2024, 1, 1).to_zoned(jiff::tz::TimeZone::UTC);
        if !start.is_ok_and(|start| cron.find_next_occurrence(&start, true).is_ok()) {
            return Err(wrong().help("no day there is fits it: it would never be due"));
        }
        Ok(found_good.insert(Self(text)).clone())
    }
}

fn check_field(field: &str, low: u32, high: u32) -> Result<(), String> {
    if let Some(c) = field.chars().find(|c| !c.is_ascii_alphanumeric() && !"*/-,#?".contains(*c)) {
        return Err(format!("`{c}` does not belong there"));
    }
    for item in field.split(',') {
        if item.is_empty() {
            return Err("an item of the list is empty".into());
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        if let Some(step) = step {
            match step.parse::<u32>() {
                Ok(n) if n >= 1 && n <= high => {}
                _ => return Err(format!("the step must be a number from 1 to {high}")),
            }
        }
        for side in range.split('-') {
            if side.is_empty() {
                return Err("a side of a range is empty".into());
            }
            if side.bytes().all(|b| b.is_ascii_digit())
                && !side.parse::<u32>().is_ok_and(|n| (low..=high).contains(&n))
            {
                return Err(format!("`{side}` is not from {low} to {high}"));
            }
        }
    }
    Ok(())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Days of the week, Monday first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Days {
    pub on: [bool; 7],
    text: String,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Default for Days {
    fn default() -> Self {
        Self { on: [true; 7], text: "mon-sun".into() }
    }
}

impl Text for Days {
    const EXPECTED: &'static str = "days such as `mon-fri`, `sat,sun` or `mon`";

    fn parse(text: &str) -> Result<Self, Reason> {
        let day = |name: &str| DAYS.iter().position(|d| d.eq_ignore_ascii_case(name.trim()));
        let mut on = [false; 7];
        for item in text.split(',') {
            let (from, to) = item.split_once('-').unwrap_or((item, item));
            let (Some(from), Some(to)) = (day(from), day(to)) else {
                return Err(not(item, "a day or a range of days")
                    .help("the days are mon, tue, wed, thu, fri, sat, sun"));
            };
            // `sat-mon` goes over the end of the week.
            for i in 0..=(to + 7 - from) % 7 {
                on[(from + i) % 7] = true;
            }
        }
        Ok(Self { on, text: text.to_owned() })
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A part of the day; over midnight where the end is before the start. Minutes since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hours {
    pub from: u16,
    pub to: u16,
}

impl Text for Hours {
    const EXPECTED: &'static str = "hours such as \"08:00-19:00\"";

    fn parse(text: &str) -> Result<Self, Reason> {
        let minutes = |t: &str| -> Option<u16> {
            let (h, m) = t.trim().split_once(':')?;
            if h.len() != 2 || m.len() != 2 || !h.bytes().chain(m.bytes()).all(|b| b.is_ascii_digit()) {
                return None;
            }
            let (h, m) = (h.parse::<u16>().ok()?, m.parse::<u16>().ok()?);
            (h < 24 && m < 60 || h == 24 && m == 0).then_some(h * 60 + m)
        };
        let sides = text.split_once('-').and_then(|(a, b)| Some((minutes(a)?, minutes(b)?)));
        match sides {
            Some((from, to)) if from != to && from < 1440 => Ok(Self { from, to }),
            Some(_) => Err(not(text, "a part of the day").help("for the whole day write \"00:00-24:00\"")),
            None => {
                Err(not(text, "a part of the day")
                    .help("write two times of two digits each: \"08:00-19:00\""))
            }
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

/// An IANA time zone. The database is built in: a minimal host has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone(String);

impl Default for Zone {
    fn default() -> Self {
        Self("UTC".into())
    }
}

impl Text for Zone {
    const EXPECTED: &'static str = "a time zone of the IANA database, such as `Europe/Berlin` or `UTC`";

    fn parse(text: &str) -> Result<Self, Reason> {
        let bundled = jiff::tz::TimeZoneDatabase::bundled();
        match bundled.get(text) {
            // Kept as written; case does not matter to the database, but it does to people.
            Ok(zone) => Ok(Self(zone.iana_name().unwrap_or(text).to_owned())),
            Err(_) => {
                let names: Vec<String> = bundled.available().map(|n| n.to_string()).collect();
                let reason = not(text, "a known time zone");
                Err(match crate::error::nearest(text, names.iter().map(String::as_str)) {
                    Some(near) => reason.help(format!("did you mean `{near}`?")),
                    None => reason,
                })
            }
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_values! {
    Schedule, "cron", "string";
    Days, "days", "string";
    Hours, "hours", "string";
    Zone, "timezone", "string";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::parse;

    #[test]
    fn schedules() {
        for good in [
            "*/30 * * * *",
            "0 3 * * 1-5",
            "15,45 * * * *",
            "0 9 * * MON-FRI",
            "0 0 L * *",
            "0 0 29 2 *",
            "5  4 * * *",
        ] {
            assert!(parse::<Schedule>(good).is_ok(), "{good}: {:?}", parse::<Schedule>(good));
        }
        assert_eq!(parse::<Schedule>("@daily").unwrap().as_str(), "0 0 * * *");
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "5,,6 * * * *",
            ",5 * * * *",
            "5, * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "/5 * * * *",
            "5- * * * *",
            "-5 * * * *",
            "*/ * * * *",
            "a * * * *",
            "0 0 31 2 *",
            "0 0 30 2 *",
            "@reboot",
            "@fortnightly",
            "5-1-3 * * * *",
            "* * * * * 2030",
        ] {
            assert!(parse::<Schedule>(bad).is_err(), "{bad}: {:?}", parse::<Schedule>(bad));
        }
    }

    #[test]
    fn days_hours_zones() {
        assert_eq!(parse::<Days>("mon-fri").unwrap().on, [true, true, true, true, true, false, false]);
        assert_eq!(parse::<Days>("sat-mon").unwrap().on, [true, false, false, false, false, true, true]);
        assert_eq!(parse::<Days>("Tue,sun").unwrap().on, [false, true, false, false, false, false, true]);
        for bad in ["", "monday", "mon-", "mon,,tue", "1-5"] {
            assert!(parse::<Days>(bad).is_err(), "{bad}");
        }
        assert_eq!(parse::<Hours>("08:00-19:30").unwrap(), Hours { from: 480, to: 1170 });
        assert_eq!(parse::<Hours>("22:00-06:00").unwrap().to_string(), "22:00-06:00");
        assert!(parse::<Hours>("00:00-24:00").is_ok());
        for bad in
            ["", "8-19", "8:00-19:00", "08:00", "08:00-08:00", "08:60-09:00", "25:00-26:00", "24:00-08:00"]
        {
            assert!(parse::<Hours>(bad).is_err(), "{bad}");
        }
        assert!(parse::<Zone>("Europe/Berlin").is_ok() && parse::<Zone>("UTC").is_ok());
        assert_eq!(parse::<Zone>("Europe/Berlim").unwrap_err().help, "did you mean `Europe/Berlin`?");
    }
}
