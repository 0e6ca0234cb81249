//! Who may begin within the budget at this moment. The plan shares out what will be free; between a plan and what is
//! made of it sessions come, so whatever begins is held to these three rules, one after the other.

use domain::Budget;

use crate::budget::{Usage, holds};

/// What sandboxes take, by whose it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Sessions and builds, those that wait for a place included.
    pub used: Usage,
    /// What is on its way out.
    pub leaving: Usage,
    /// Members that nobody has claimed.
    pub members: Usage,
    /// Of `used` and `leaving` what waits, and so does not run yet.
    pub waiting: Usage,
}

impl Taken {
    fn all(&self) -> Usage {
        self.used.plus(self.leaving).plus(self.members)
    }

    /// What runs.
    pub fn there(&self) -> Usage {
        let all = self.all();
        Usage {
            memory: all.memory.saturating_sub(self.waiting.memory),
            cpu_millis: all.cpu_millis.saturating_sub(self.waiting.cpu_millis),
            sandboxes: all.sandboxes.saturating_sub(self.waiting.sandboxes),
        }
    }

    /// Whether a session that has to start a sandbox of this size is accepted: it has a place when all pools are empty.
    pub fn admits(&self, budget: &Budget, one: Usage) -> bool {
        holds(budget, self.used.plus(one))
    }

    /// Whether one that was accepted, and waits, starts now.
    pub fn starts(&self, budget: &Budget, one: Usage) -> bool {
        holds(budget, self.there().plus(one))
    }

    /// Whether a member is made now: those that wait have the next place.
    pub fn makes(&self, budget: &Budget, one: Usage) -> bool {
        holds(budget, self.all().plus(one))
    }
}
