//! Each target over its seeds and some thousand changed ones. The same ones every time: what fails here fails again.

use fuzz::{TARGETS, Target};

/// Changed inputs of each target.
const ROUNDS: u64 = 4000;
/// Longer ones tell nothing more.
const LONGEST: usize = 16 * 1024;

/// Random numbers that repeat (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// One seed, changed in one to six places.
fn changed(target: &Target, numbers: &mut Numbers) -> Vec<u8> {
    let seed = target.seeds[numbers.below(target.seeds.len())];
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = numbers.next() as u8,
            2 => drop(bytes.splice(at..at, target.words[numbers.below(target.words.len())].iter().copied())),
            3 => drop(bytes.drain(at..(at + 1 + numbers.below(8)).min(bytes.len()).max(at))),
            4 => bytes.truncate(at),
            _ => {
                let other = target.seeds[numbers.below(target.seeds.len())];
                let from = numbers.below(other.len());
                let to = (from + 1 + numbers.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("a target");
    for seed in target.seeds {
        (target.run)(seed);
    }
    (target.run)(&[]);
    let mut numbers = Numbers(1);
    for round in 0..ROUNDS {
        let bytes = changed(target, &mut numbers);
        let held = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(held.is_ok(), "round {round}: {:?}", String::from_utf8_lossy(&bytes));
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_run_here_and_by_cargo_fuzz() {
            let here = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|t| t.name), here);
            let manifest = include_str!("../targets/Cargo.toml");
            for name in here {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/targets lacks {name}");
            }
        }
    };
}

each!(config recipe pkt_lines listings webhook agent_frames paths cron);
