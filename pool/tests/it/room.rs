//! Sessions and plans that are carried out late, under one budget.

use domain::{Budget, SandboxState};
use pool::{Action, Taken, Usage};
use proptest::prelude::*;

use crate::make::policy;
use crate::world::World;

const GIB: u64 = 1 << 30;
const REPOS: usize = 3;

/// What happens between two plans.
#[derive(Debug, Clone)]
enum Event {
    /// A session that finds no member, of this repo.
    Cold(usize),
    /// One that takes a warm member.
    Claim(usize),
    /// The oldest session ends.
    End,
    Boot,
    /// A plan is made.
    Plan,
    /// So much of the latest plan is carried out.
    CarryOut(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..REPOS).prop_map(Event::Cold),
        2 => (0..REPOS).prop_map(Event::Claim),
        2 => Just(Event::End),
        2 => Just(Event::Boot),
        3 => Just(Event::Plan),
        4 => (1usize..6).prop_map(Event::CarryOut),
    ]
}

/// A server: the rows of members in `world`, and sessions by what each takes.
struct Server {
    world: World,
    running: Vec<Usage>,
    waiting: Vec<Usage>,
    todo: Vec<Action>,
}

impl Server {
    fn size(&self, repo: usize) -> Usage {
        Usage::one(&self.world.repos[repo].size)
    }

    fn of(&self, states: &[SandboxState]) -> Usage {
        (0..REPOS).map(|i| self.size(i).times(states.iter().map(|s| self.world.count(i, *s)).sum())).sum()
    }

    fn taken(&self) -> Taken {
        use SandboxState as S;
        let waiting: Usage = self.waiting.iter().copied().sum();
        Taken {
            used: self.running.iter().copied().sum::<Usage>().plus(waiting).plus(self.of(&[S::Claimed])),
            leaving: self.of(&[S::Stopping]),
            members: self.of(&[S::Creating, S::Starting, S::Warm]),
            waiting,
        }
    }

    fn plan(&mut self) {
        let waiting: Usage = self.waiting.iter().copied().sum();
        self.world.sessions = self.running.iter().copied().sum::<Usage>().plus(waiting);
        self.todo = self.world.plan().actions().cloned().collect();
    }

    /// As the server does it: members ask at the door, and what was claimed meanwhile is left alone.
    fn carry_out(&mut self, n: usize) {
        for action in self.todo.drain(..n.min(self.todo.len())).collect::<Vec<_>>() {
            match action {
                Action::CreateMember { repo, .. } => {
                    let i = self.world.repos.iter().position(|r| r.name == repo).unwrap();
                    if self.taken().makes(&self.world.budget, self.size(i)) {
                        self.world.add(i, 1, SandboxState::Creating, 0);
                    }
                }
                Action::RetireMember { sandbox, .. } => {
                    let row = self.world.rows.get_mut(&sandbox).unwrap();
                    if !matches!(row.state, SandboxState::Claimed | SandboxState::Gone) {
                        row.state = SandboxState::Stopping;
                    }
                }
            }
        }
    }

    fn begin(&mut self) {
        while let Some(one) = self.waiting.first().copied()
            && self.taken().starts(&self.world.budget, one)
        {
            self.waiting.remove(0);
            self.running.push(one);
        }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Cold(i) => {
                if self.taken().admits(&self.world.budget, self.size(i)) {
                    self.waiting.push(self.size(i));
                }
            }
            Event::Claim(i) => {
                let name = self.world.repos[i].name.clone();
                let warm = |r: &&mut domain::SandboxRecord| r.repo == name && r.state == SandboxState::Warm;
                if let Some(row) = self.world.rows.values_mut().find(warm) {
                    row.state = SandboxState::Claimed;
                }
            }
            Event::End => drop((!self.running.is_empty()).then(|| self.running.remove(0))),
            Event::Boot => self.world.boot(),
            Event::Plan => self.plan(),
            Event::CarryOut(n) => self.carry_out(n),
        }
        self.begin();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    /// F14: whatever comes between a plan and its deeds, what runs is within the budget at every moment; and once
    /// nothing new comes, every session that was accepted has its place, whatever the pools would like.
    #[test]
    fn what_begins_is_within_the_budget_and_sessions_come_first(
        events in prop::collection::vec(event(), 0..80),
        budget in 4u64..16,
        mins in prop::collection::vec(0u32..6, REPOS),
        sizes in prop::collection::vec(1u64..4, REPOS),
    ) {
        let policies: Vec<_> = mins.iter().map(|min| policy(*min, 9)).collect();
        let mut world = World::new(&policies);
        world.budget = Budget { memory: Some(budget * GIB), ..Budget::default() };
        world.repos.iter_mut().zip(&sizes).for_each(|(repo, size)| repo.size.memory = size * GIB);
        let mut server = Server { world, running: Vec::new(), waiting: Vec::new(), todo: Vec::new() };
        for event in &events {
            server.happens(event);
            let there = server.taken().there();
            prop_assert!(there.memory <= budget * GIB, "{there:?} after {event:?}");
        }
        for _ in 0..3 * events.len() + 9 {
            server.happens(&Event::Plan);
            server.happens(&Event::CarryOut(usize::MAX));
            server.happens(&Event::Boot);
        }
        // Members that were claimed after a session was accepted may hold the place that it was accepted for.
        let claimed = server.of(&[SandboxState::Claimed]).memory;
        prop_assert!(server.waiting.is_empty() || claimed > 0, "{:?} wait, {}", server.waiting, server.world.plan());
    }
}
