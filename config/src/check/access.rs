//! What a provider's section must have, and what none may have twice.

use super::Checker;
use crate::error::Problem;
use crate::sections::AccessSection;
use crate::tree::{Node, Value};

impl Checker<'_> {
    pub(super) fn access(&mut self, access: &AccessSection) {
        self.at_least("", "access.per_second", access.per_second, 1, "without requests there is no API");
        // One that was refused before is not among them: each knows where it stands.
        let places: Vec<_> = match self.root.find("access.oidc") {
            Some(Node { value: Value::List(items), .. }) => items.iter().map(|n| n.path.clone()).collect(),
            _ => Vec::new(),
        };
        for (i, (oidc, at)) in access.oidc.iter().zip(places).enumerate() {
            for key in oidc.empty() {
                let problem = Problem::new(format!("`{key}` is empty, or something in it is"))
                    .expected("at least one, and none without text");
                self.problem("", &format!("{at}.{key}"), problem);
            }
            if access.oidc[..i].iter().any(|other| other.issuer == oidc.issuer) {
                let problem = Problem::new("this issuer is configured twice")
                    .value(oidc.issuer.to_string())
                    .expected("each issuer once; what differs between its tokens is said by `roles`");
                self.problem("", &format!("{at}.issuer"), problem);
            }
        }
    }
}
