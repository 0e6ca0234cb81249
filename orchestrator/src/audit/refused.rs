//! Refusals come as often as somebody likes to be refused, and the audit log must neither fill a disk with them nor lose
//! what else it holds to them. The first of a kind is a line at once; those that follow within a minute share one more,
//! which says how many they were. What is of a kind, and of how many kinds there is an account, is here; pure.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use domain::AuditEntry;
use jiff::{SignedDuration, Timestamp};

/// For how long refusals of a kind are counted together.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// Addresses of which there is an account each within a window; the rest share one.
const MOST_ADDRESSES: usize = 16;
/// The same for what somebody who is known is refused.
const MOST_KNOWN: usize = 1024;
/// Who is written down where nobody was recognised. No key can be called so.
pub const NOBODY: &str = "(nobody)";
/// Who, or where from, where it were too many to tell apart.
const OTHERS: &str = "(others)";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    /// Nobody knows who: by the address alone, whatever was asked for.
    From(String),
    /// Somebody who is known, and what he may not.
    Known {
        who: String,
        action: String,
        status: u16,
    },
    OtherAddresses,
    OtherKnown,
}

/// What was refused after the first.
#[derive(Debug)]
struct Tally {
    last: AuditEntry,
    more: u32,
}

#[derive(Debug, Default)]
pub struct Refused {
    /// When the window began, while one is open.
    since: Option<Timestamp>,
    tallies: HashMap<Kind, Tally>,
    addresses: usize,
}

impl Refused {
    /// The lines to write now that this was refused.
    pub fn take(&mut self, entry: AuditEntry) -> Vec<AuditEntry> {
        let mut lines = self.due(entry.at);
        self.since.get_or_insert(entry.at);
        let kind = self.room_for(Kind::of(&entry));
        let entry = kind.shown(entry);
        match self.tallies.get_mut(&kind) {
            Some(tally) => {
                tally.more = tally.more.saturating_add(1);
                tally.last = entry;
            }
            None => {
                self.addresses += usize::from(matches!(kind, Kind::From(_)));
                self.tallies.insert(kind, Tally { last: entry.clone(), more: 0 });
                lines.push(entry);
            }
        }
        lines
    }

    /// What is written when the window is over.
    pub fn due(&mut self, now: Timestamp) -> Vec<AuditEntry> {
        // Requests end in another order than they began; only a clock that was set back is far behind.
        let over = |since: Timestamp| now.duration_since(since).abs() >= WINDOW;
        if self.since.is_some_and(over) { self.close(now) } else { Vec::new() }
    }

    /// Ends the window: a line for each kind that came again. Their moment is this one, so that the log keeps its order.
    pub fn close(&mut self, now: Timestamp) -> Vec<AuditEntry> {
        (self.since, self.addresses) = (None, 0);
        let again = self.tallies.drain().filter(|(_, tally)| tally.more > 0);
        let mut lines: Vec<_> = again.map(|(_, Tally { last, more })| (last, more)).collect();
        lines.sort_by(|(a, _), (b, _)| (a.at, &a.who, &a.from).cmp(&(b.at, &b.who, &b.from)));
        lines.into_iter().map(|(last, times)| AuditEntry { at: now, times, ..last }).collect()
    }

    /// The kind itself, or the one for all that there is no room for.
    fn room_for(&self, kind: Kind) -> Kind {
        if self.tallies.contains_key(&kind) {
            return kind;
        }
        match &kind {
            Kind::From(_) if self.addresses >= MOST_ADDRESSES => Kind::OtherAddresses,
            Kind::Known { .. } if self.tallies.len() - self.addresses >= MOST_KNOWN => Kind::OtherKnown,
            _ => kind,
        }
    }
}

impl Kind {
    fn of(entry: &AuditEntry) -> Self {
        if entry.who == NOBODY {
            return Self::From(address(&entry.from));
        }
        Self::Known { who: entry.who.clone(), action: entry.action.clone(), status: entry.status }
    }

    /// What the line says where it stands for several.
    fn shown(&self, entry: AuditEntry) -> AuditEntry {
        match self {
            Self::From(_) | Self::Known { .. } => entry,
            Self::OtherAddresses => AuditEntry { from: OTHERS.into(), ..entry },
            Self::OtherKnown => {
                AuditEntry { who: OTHERS.into(), key: None, user: None, from: OTHERS.into(), ..entry }
            }
        }
    }
}

/// Where somebody is, without the port: one machine is one address, and so is one network of IPv6.
fn address(from: &str) -> String {
    let Ok(at) = from.parse::<SocketAddr>() else { return from.to_owned() };
    match at.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn entry(second: i64, who: &str, from: &str, status: u16) -> AuditEntry {
        AuditEntry {
            at: at(second),
            who: who.into(),
            key: None,
            user: None,
            from: from.into(),
            action: "GET /v1/keys".into(),
            subject: "/v1/keys".into(),
            made: None,
            status,
            times: 1,
        }
    }

    fn told(lines: &[AuditEntry]) -> Vec<(&str, &str, u32)> {
        lines.iter().map(|l| (l.who.as_str(), l.from.as_str(), l.times)).collect()
    }

    #[test]
    fn the_first_is_a_line_and_the_rest_of_its_minute_is_one_more() {
        let mut refused = Refused::default();
        assert_eq!(told(&refused.take(entry(0, NOBODY, "10.0.0.1:5", 401))), [(NOBODY, "10.0.0.1:5", 1)]);
        for n in 0..5000 {
            assert!(refused.take(entry(n % 60, NOBODY, &format!("10.0.0.1:{n}"), 401)).is_empty());
        }
        // Another address is of another kind; so is somebody who is known, by what he asked for.
        assert_eq!(refused.take(entry(30, NOBODY, "10.0.0.2:1", 401)).len(), 1);
        assert_eq!(refused.take(entry(30, "ci", "10.0.0.1:1", 403)).len(), 1);
        assert_eq!(refused.take(entry(31, "ci", "10.0.0.9:1", 429)).len(), 1);
        assert!(refused.take(entry(32, "ci", "10.0.0.9:1", 403)).is_empty());
        assert!(refused.due(at(59)).is_empty());
        let lines = refused.due(at(60));
        assert_eq!(told(&lines), [(NOBODY, "10.0.0.1:4999", 5000), ("ci", "10.0.0.9:1", 1)]);
        assert!(lines.iter().all(|l| l.at == at(60)));
        // The next window has a first again, and nothing is told twice.
        assert_eq!(refused.take(entry(61, NOBODY, "10.0.0.1:5", 401)).len(), 1);
        assert!(refused.close(at(62)).is_empty());
    }

    #[test]
    fn what_is_late_closes_the_window_first() {
        let mut refused = Refused::default();
        for second in [0, 1, 2, 70] {
            let lines = refused.take(entry(second, NOBODY, "unix", 401));
            match second {
                0 => assert_eq!(told(&lines), [(NOBODY, "unix", 1)]),
                70 => assert_eq!(told(&lines), [(NOBODY, "unix", 2), (NOBODY, "unix", 1)]),
                _ => assert!(lines.is_empty()),
            }
        }
        // Who began before and ended after is of the same window.
        assert!(refused.take(entry(69, NOBODY, "unix", 401)).is_empty());
        // A clock that was set back does not hold it open.
        assert_eq!(refused.take(entry(-500, NOBODY, "unix", 401)).len(), 2);
    }

    #[test]
    fn a_flood_from_everywhere_is_a_few_lines_a_minute() {
        let mut refused = Refused::default();
        let mut lines = Vec::new();
        for n in 0..100_000u32 {
            let from = format!("10.{}.{}.{}:9", n >> 16, n >> 8 & 255, n & 255);
            lines.extend(refused.take(entry(1, NOBODY, &from, 401)));
            lines.extend(refused.take(entry(1, NOBODY, &from, 401)));
        }
        lines.extend(refused.close(at(60)));
        assert_eq!(lines.len(), 2 * (MOST_ADDRESSES + 1));
        assert_eq!(lines.iter().map(|l| l.times).sum::<u32>(), 200_000, "each is counted");
        assert!(lines.iter().any(|l| l.from == OTHERS && l.times > 190_000));

        // Who is known can be many, too, where an identity provider has many people.
        for n in 0..3000 {
            refused.take(entry(61, &format!("oidc:x#{n}"), "10.0.0.1:1", 403));
        }
        assert_eq!(refused.tallies.len(), MOST_KNOWN + 1);
        // And those have no part in what addresses get.
        assert_eq!(refused.take(entry(62, NOBODY, "10.0.0.1:1", 401)).len(), 1);
    }

    #[test]
    fn an_address_is_a_machine_or_a_network() {
        for (from, expected) in [
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
            ("[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64"),
            ("unix", "unix"),
        ] {
            assert_eq!(address(from), expected);
        }
    }
}
