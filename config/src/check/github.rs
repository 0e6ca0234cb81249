//! What `forge.github` must be together with the repositories: their names are the only thing that GitHub is told, so
//! each has to be the one that git is told, too.

use super::{Checker, Merged};
use crate::error::{Problem, clip};
use crate::sections::GithubSection;
use crate::settings::{GithubSettings, GithubUsers};

impl Checker<'_> {
    pub(super) fn github(&mut self, section: &GithubSection, repos: &[Merged]) {
        if section.app_id == 0 {
            let problem = Problem::new("`0` is no App's id")
                .value("0")
                .expected("the number in the App's settings at GitHub");
            self.problem("", "forge.github.app_id", problem);
        }
        if section.users.as_ref().is_some_and(|users| users.client_id.trim().is_empty()) {
            let problem = Problem::new("`client_id` is empty")
                .value("")
                .expected("the client id in the App's settings at GitHub");
            self.problem("", "forge.github.users.client_id", problem);
        }
        let here = |key: &str| self.root.find(&format!("forge.github.{key}")).is_some();
        if here("api_url") != here("web_url") {
            let (given, missing) =
                if here("api_url") { ("api_url", "web_url") } else { ("web_url", "api_url") };
            let problem = Problem::new(format!("`{given}` is given and `{missing}` is not")).expected(
                "both, as of one GitHub (`https://HOST/api/v3` and `https://HOST`), or neither for github.com",
            );
            self.problem("", &format!("forge.github.{given}"), problem);
            return;
        }
        let git = &section.git_url.as_ref().unwrap_or(&section.web_url).0;
        for Merged { at, section, .. } in repos {
            let (Some(name), Some(url)) = (&section.name, &section.url) else { continue };
            let wanted = format!("{git}/{name}.git");
            let bare = url.0.trim_end_matches('/').trim_end_matches(".git");
            if !bare.eq_ignore_ascii_case(wanted.trim_end_matches(".git")) {
                let problem =
                    Problem::new(format!("`{}` is not where this GitHub has `{name}`", clip(&url.0)))
                        .value(&url.0)
                        .expected(format!("`{wanted}`"));
                self.problem(at, "url", problem);
            }
        }
    }

    pub(super) fn github_settings(&self, section: &GithubSection) -> GithubSettings {
        let secrets = std::iter::once(&section.webhook_secret).chain(&section.previous_webhook_secret);
        GithubSettings {
            app_id: section.app_id,
            private_key: self.source(&section.private_key),
            webhook_secrets: secrets.map(|s| self.source(s)).collect(),
            api_url: section.api_url.0.clone(),
            web_url: section.web_url.0.clone(),
            git_url: section.git_url.as_ref().unwrap_or(&section.web_url).0.clone(),
            users: section.users.as_ref().map(|users| GithubUsers {
                client_id: users.client_id.clone(),
                client_secret: users.client_secret.as_ref().map(|s| self.source(s)),
                vault_key: self.source(&users.vault_key),
            }),
        }
    }
}
