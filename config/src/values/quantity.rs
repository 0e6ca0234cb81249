//! Amounts with units: time, memory, processors, a rate.

use std::fmt;
use std::time::Duration;

use crate::de::Reason;
use crate::values::{Text, not, text_values};

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(pub Duration);

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
const LONGEST: u64 = 3650 * 86_400;

impl Period {
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    pub const fn minutes(n: u64) -> Self {
        Self::seconds(n * 60)
    }
    pub const fn hours(n: u64) -> Self {
        Self::minutes(n * 60)
    }
}

impl Text for Period {
    const EXPECTED: &'static str = "a duration with its unit, such as `45s`, `30m`, `4h`, `1h30m` or `7d`";

    fn parse(text: &str) -> Result<Self, Reason> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Self::number(text);
        }
        let wrong = || not(text, "a duration");
        let mut rest = text;
        let mut total = 0u64;
        let mut last = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit = tail.chars().next();
            let seconds = UNITS.iter().find(|(c, _)| Some(*c) == unit).map(|(_, s)| *s);
            let (Ok(n), Some(seconds)) = (number.parse::<u64>(), seconds) else {
                let help = "the units are `d`, `h`, `m` and `s`; write whole numbers, without blanks";
                return Err(wrong().help(help));
            };
            if seconds >= last {
                return Err(wrong().help("write each unit once, the larger first: `1h30m`"));
            }
            last = seconds;
            total = n.checked_mul(seconds).and_then(|s| s.checked_add(total)).unwrap_or(u64::MAX);
            rest = &tail[1..];
        }
        match total {
            0 => Err(wrong().help("it must be longer than nothing")),
            t if t > LONGEST => Err(wrong().help("it must not be longer than 3650d")),
            t => Ok(Self::seconds(t)),
        }
    }

    fn number(text: &str) -> Result<Self, Reason> {
        Err(Reason::new(format!("`{text}` has no unit"))
            .help(format!("write a unit: `{text}s`, `{text}m` or `{text}h`")))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        for (unit, seconds) in UNITS {
            // `24h` reads better than `1d`, and whole days of more than that do not.
            if unit == 'd' && rest < 2 * 86_400 {
                continue;
            }
            if rest >= seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub u64);

const SIZES: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Text for ByteSize {
    const EXPECTED: &'static str = "a size with its unit, such as `512MiB`, `4GiB` or `1GB`";

    fn parse(text: &str) -> Result<Self, Reason> {
        let wrong = || not(text, "a size");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if unit.is_empty() && !number.is_empty() {
            return Self::number(text);
        }
        let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            let near = |name: &str| {
                let first = unit.chars().next().map(|c| c.to_ascii_lowercase());
                unit.len() <= 3 && name.chars().next().map(|c| c.to_ascii_lowercase()) == first
            };
            let meant: Vec<String> =
                SIZES.iter().filter(|(n, _)| near(n)).map(|(n, _)| format!("`{number}{n}`")).collect();
            return Err(match meant.is_empty() || number.is_empty() {
                true => wrong().help("write a whole number and one of KiB, MiB, GiB, TiB, KB, MB, GB, TB"),
                false => wrong().help(format!("write {}", meant.join(" or "))),
            });
        };
        match number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)) {
            Some(0) | None => Err(wrong().help("it must be more than nothing and less than 16EiB")),
            Some(n) => Ok(Self(n)),
        }
    }

    fn number(text: &str) -> Result<Self, Reason> {
        Err(Reason::new(format!("`{text}` has no unit"))
            .help(format!("write a unit: `{text}MiB` or `{text}GiB`")))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that divides it; binary units are what memory comes in.
        let best =
            SIZES[..4].iter().rev().chain(SIZES[4..].iter().rev()).find(|(_, n)| self.0.is_multiple_of(*n));
        match best {
            Some((name, n)) => write!(f, "{}{name}", self.0 / n),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Processors, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cpus(pub u32);

impl Text for Cpus {
    const EXPECTED: &'static str = "a number of processors from 0.01 to 4096, such as `2` or `0.5`";

    fn parse(text: &str) -> Result<Self, Reason> {
        Err(not(text, "a number of processors").help(match text.parse::<f64>() {
            Ok(_) => "remove the quotes",
            Err(_) => "write a plain number, without a unit",
        }))
    }

    fn number(text: &str) -> Result<Self, Reason> {
        let millis = text.parse::<f64>().unwrap_or(0.0) * 1000.0;
        if !(10.0..=4_096_000.0).contains(&millis) {
            return Err(not(text, "a number of processors that a sandbox can have"));
        }
        if (millis - millis.round()).abs() > 1e-6 {
            return Err(
                not(text, "a number of processors").help("write at most three digits after the point")
            );
        }
        Ok(Self(millis.round() as u32))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

/// A share between nothing and all, both excluded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(pub f64);

impl Text for Rate {
    const EXPECTED: &'static str = "a number between 0 and 1, such as `0.99`";

    fn parse(text: &str) -> Result<Self, Reason> {
        Err(not(text, "a number"))
    }

    fn number(text: &str) -> Result<Self, Reason> {
        let n = text.parse::<f64>().unwrap_or(-1.0);
        if n > 0.0 && n < 1.0 {
            return Ok(Self(n));
        }
        let reason = not(text, "a share between none and all");
        Err(if n > 1.0 && n < 100.0 { reason.help(format!("write {}", n / 100.0)) } else { reason })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A share that may be the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(pub f64);

impl Text for Share {
    const EXPECTED: &'static str = "a number above 0 and at most 1, such as `0.1`";

    fn parse(text: &str) -> Result<Self, Reason> {
        Err(not(text, "a number"))
    }

    fn number(text: &str) -> Result<Self, Reason> {
        match text.parse::<f64>() {
            Ok(n) if n > 0.0 && n <= 1.0 => Ok(Self(n)),
            Ok(n) if n > 1.0 && n <= 100.0 => Err(not(text, "a share").help(format!("write {}", n / 100.0))),
            _ => Err(not(text, "a share")),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port(pub u16);

impl Text for Port {
    const EXPECTED: &'static str = "a port, 1 to 65535";

    fn parse(text: &str) -> Result<Self, Reason> {
        let reason = not(text, "a port");
        Err(if text.parse::<u16>().is_ok() { reason.help("remove the quotes") } else { reason })
    }

    fn number(text: &str) -> Result<Self, Reason> {
        match text.parse() {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => Err(not(text, "a port")),
        }
    }
}

text_values! {
    Period, "timespan", "string";
    ByteSize, "size", "string";
}

/// The same for numbers; they print as numbers.
macro_rules! number_values {
    ($($name:ident, $get:expr, $schema:tt;)*) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                crate::values::text(d)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let n: f64 = $get(self);
                if n.fract() == 0.0 { s.serialize_i64(n as i64) } else { s.serialize_f64(n) }
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    )*};
}

number_values! {
    Cpus, |c: &Cpus| f64::from(c.0) / 1000.0, { "type": "number", "minimum": 0.01, "maximum": 4096 };
    Port, |p: &Port| f64::from(p.0), { "type": "integer", "minimum": 1, "maximum": 65535 };
    Rate, |r: &Rate| r.0, { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 };
    Share, |s: &Share| s.0, { "type": "number", "exclusiveMinimum": 0, "maximum": 1 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::parse;

    #[test]
    fn durations() {
        for (text, seconds) in [("45s", 45), ("30m", 1800), ("4h", 14_400), ("1h30m", 5400), ("7d", 604_800)]
        {
            let p = parse::<Period>(text).unwrap();
            assert_eq!(p.0.as_secs(), seconds);
            assert_eq!(p.to_string(), text);
        }
        assert_eq!(parse::<Period>("24h").unwrap().to_string(), "24h");
        for bad in [
            "",
            "30",
            "1.5h",
            "30 m",
            "-5m",
            "m",
            "5m5m",
            "5m1h",
            "0s",
            "99999999999999999999d",
            "4000d",
            "5ms",
            "٣m",
        ] {
            assert!(parse::<Period>(bad).is_err(), "{bad}");
        }
        assert_eq!(parse::<Period>("30").unwrap_err().help, "write a unit: `30s`, `30m` or `30h`");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("4GiB", 4 << 30), ("512MiB", 512 << 20), ("1GB", 1_000_000_000), ("48GiB", 48 << 30)]
        {
            let s = parse::<ByteSize>(text).unwrap();
            assert_eq!(s.0, bytes);
            assert_eq!(s.to_string(), text);
        }
        for bad in
            ["", "4", "4G", "4gib", "4 GiB", "0GiB", "1.5GiB", "-1GiB", "GiB", "99999999999TiB", "4XiB"]
        {
            assert!(parse::<ByteSize>(bad).is_err(), "{bad}");
        }
        assert_eq!(parse::<ByteSize>("4G").unwrap_err().help, "write `4GiB` or `4GB`");
    }

    #[test]
    fn processors_and_rates() {
        assert_eq!(Cpus::number("2").unwrap(), Cpus(2000));
        assert_eq!(Cpus::number("0.5").unwrap(), Cpus(500));
        for bad in ["0", "-1", "0.0005", "1.0005", "5000"] {
            assert!(Cpus::number(bad).is_err(), "{bad}");
        }
        assert!(Rate::number("0.99").is_ok());
        assert_eq!(Rate::number("99").unwrap_err().help, "write 0.99");
        assert!(Share::number("1").is_ok() && Share::number("0.1").is_ok() && Share::number("0").is_err());
        assert_eq!(Share::number("10").unwrap_err().help, "write 0.1");
        assert!(Rate::number("1").is_err() && Rate::number("0").is_err());
    }
}
