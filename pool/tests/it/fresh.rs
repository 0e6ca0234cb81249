//! Who is brought to the tip, and in which order.

use domain::{ImageId, Purpose, SandboxId, SandboxState, SessionId, WarmupId};
use pool::behind;

use crate::make::{commit, member, repo};

#[test]
fn those_that_would_be_handed_out_next_come_first() {
    let name = repo("acme/api");
    let tip = commit(9);
    let idle = |id, created| member(id, &name, 2, SandboxState::Warm, created);
    let mut at_tip = idle(1, 0);
    at_tip.commit = Some(tip.clone());
    let mut unknown = idle(2, 20);
    unknown.commit = None;
    let older_image = member(3, &name, 1, SandboxState::Warm, 1);
    let starting = member(4, &name, 2, SandboxState::Starting, 2);
    let mut held = idle(5, 3);
    held.reserved = Some(WarmupId::from_u128(1));
    let mut claimed = member(6, &name, 2, SandboxState::Claimed, 4);
    claimed.session = Some(SessionId::from_u128(1));
    let mut build = idle(7, 5);
    build.purpose = Purpose::Session(SessionId::from_u128(2));
    let all = [idle(9, 30), at_tip, unknown, older_image, starting, held, claimed, build, idle(8, 10)];
    let ids = |n: &[u128]| n.iter().map(|n| SandboxId::from_u128(*n)).collect::<Vec<_>>();
    assert_eq!(behind(&tip, &[ImageId::from_u128(2)], &all), ids(&[8, 2, 9]));
    // Without a current image nothing is known to be older.
    assert_eq!(behind(&tip, &[], &all), ids(&[3, 8, 2, 9]));
    assert_eq!(behind(&commit(2), &[ImageId::from_u128(2)], &all), ids(&[1, 2]));
}
