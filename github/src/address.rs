//! Where one GitHub is: three addresses, which on github.com, GitHub Enterprise Server and data residency differ.

use domain::{Error, RepoName, Result};

/// The addresses of one GitHub, each without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// REST: `https://api.github.com`, `https://HOST/api/v3`.
    pub api: String,
    /// People: sign-in and pages. `https://github.com`, `https://HOST`.
    pub web: String,
    /// Git over HTTP; most often the same as `web`.
    pub git: String,
}

impl Addresses {
    /// Checks the three; a slash at the end is taken off.
    ///
    /// # Errors
    /// `Invalid` for what is no `http` or `https` address, or holds a credential.
    pub fn new(api: &str, web: &str, git: &str) -> Result<Self> {
        Ok(Self { api: base("api", api)?, web: base("web", web)?, git: base("git", git)? })
    }

    pub fn github_com() -> Self {
        let web = "https://github.com";
        Self { api: "https://api.github.com".into(), web: web.into(), git: web.into() }
    }

    /// The domain of addresses that stand for an account: `ID+LOGIN@users.noreply.github.com`.
    pub fn noreply_domain(&self) -> String {
        let host =
            self.web.split("://").nth(1).unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
        format!("users.noreply.{host}")
    }

    /// Where git clones from.
    pub fn clone_url(&self, repo: &RepoName) -> String {
        format!("{}/{repo}.git", self.git)
    }
}

fn base(which: &str, text: &str) -> Result<String> {
    let wrong = |why: &str| Error::invalid(format!("the {which} address of GitHub {why}"));
    let uri: http::Uri = text.parse().map_err(|_| wrong("is no address"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("is to begin with `https://` and a host"));
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(wrong("holds a credential"));
    }
    if uri.query().is_some() {
        return Err(wrong("holds a query"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let ghes = Addresses::new(
            "https://git.acme.example/api/v3/",
            "https://git.acme.example/",
            "https://git.acme.example",
        );
        let ghes = ghes.unwrap();
        assert_eq!(
            (ghes.api.as_str(), ghes.web.as_str()),
            ("https://git.acme.example/api/v3", "https://git.acme.example")
        );
        assert_eq!(ghes.noreply_domain(), "users.noreply.git.acme.example");
        assert_eq!(Addresses::github_com().noreply_domain(), "users.noreply.github.com");
        assert_eq!(ghes.clone_url(&"acme/api".parse().unwrap()), "https://git.acme.example/acme/api.git");
        for bad in ["", "github.com", "ftp://x", "https://u:p@x", "https://x?y", "https://"] {
            assert!(Addresses::new(bad, "https://x", "https://x").is_err(), "{bad}");
        }
    }
}
