//! Accounts of the sandbox, by name or number, as its own `/etc/passwd` and `/etc/group` have them.
//!
//! The agent is a static binary in somebody else's root, so it reads the files itself; other sources of accounts
//! (NSS) are not asked.

use std::fs;

use domain::{Error, Result};

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// All groups, the first one included.
    pub groups: Vec<u32>,
    pub name: String,
    pub home: String,
}

/// The account that `text` names: `name`, `uid`, `name:group` or `uid:gid`. A number needs no entry.
pub fn find(text: &str) -> Result<User> {
    let read =
        |path: &str| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    look_up(text, &read("/etc/passwd"), &read("/etc/group"))
}

fn look_up(text: &str, passwd: &str, group: &str) -> Result<User> {
    let (account, wanted_group) = match text.split_once(':') {
        Some((account, group)) => (account, Some(group)),
        None => (text, None),
    };
    let number = account.parse::<u32>().ok();
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (uid, gid) = (uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
        let home = fields.nth(1).unwrap_or("/");
        let found = name == account || number == Some(uid);
        found.then(|| User { uid, gid, groups: Vec::new(), name: name.to_owned(), home: home.to_owned() })
    });
    let mut user = match (entry, number) {
        (Some(user), _) => user,
        (None, Some(uid)) => {
            User { uid, gid: uid, groups: Vec::new(), name: account.to_owned(), home: "/".into() }
        }
        (None, None) => {
            return Err(Error::invalid(format!("there is no account `{account}` in this sandbox")));
        }
    };
    if let Some(wanted) = wanted_group {
        user.gid = group_id(wanted, group)
            .ok_or_else(|| Error::invalid(format!("there is no group `{wanted}` in this sandbox")))?;
    }
    user.groups.push(user.gid);
    for (gid, members) in groups(group) {
        if members.split(',').any(|m| m == user.name) && !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(user)
}

fn group_id(wanted: &str, group: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        (name == wanted).then(|| gid.parse().ok())?
    });
    by_name.or_else(|| wanted.parse().ok())
}

fn groups(group: &str) -> impl Iterator<Item = (u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\npostgres:x:105:110::/var/lib/postgresql:/bin/bash\nbroken\n";
    const GROUP: &str = "root:x:0:\npostgres:x:110:\nssl-cert:x:109:postgres,www-data\nstaff:x:50:\n";

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let postgres = User {
            uid: 105,
            gid: 110,
            groups: vec![110, 109],
            name: "postgres".into(),
            home: "/var/lib/postgresql".into(),
        };
        assert_eq!(look_up("postgres", PASSWD, GROUP).unwrap(), postgres);
        assert_eq!(look_up("105", PASSWD, GROUP).unwrap(), postgres);
        let staff = look_up("postgres:staff", PASSWD, GROUP).unwrap();
        assert_eq!((staff.gid, staff.groups), (50, vec![50, 109]));
        let nobody = look_up("4000:7", PASSWD, GROUP).unwrap();
        assert_eq!((nobody.uid, nobody.gid, nobody.home.as_str()), (4000, 7, "/"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let text = |t: &str| look_up(t, PASSWD, GROUP).unwrap_err().to_string();
        assert!(text("alice").contains("no account `alice`"), "{}", text("alice"));
        assert!(text("root:alice").contains("no group `alice`"), "{}", text("root:alice"));
        assert!(look_up("", PASSWD, GROUP).is_err());
    }
}
