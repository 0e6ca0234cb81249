//! The project that a demo works on: always a repository of the demo's own, served by real smart HTTP on loopback,
//! so that pushes and upstream commits are real and nobody else's repository is touched.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use domain::{
    Base, Branch, Error, Network, PoolPolicy, Recipe, RepoName, RepoSpec, Resources, Result, SessionPolicy,
};
use git::hosting::GitHost;
use tokio::process::Command;

/// A well-known library with dependencies and a test suite of its own.
const PACKAGE: &str = "flask==3.0.3";

pub struct Project {
    pub spec: RepoSpec,
    pub docker: config::DockerSettings,
    /// In words.
    pub what: String,
    /// What runs in the sandbox as "the test suite".
    pub tests: String,
    /// A file that every checkout has, to read first.
    pub first_file: Option<String>,
}

impl Project {
    /// A source distribution from the package registry, turned into a repository with a few commits.
    pub async fn of_registry(host: &GitHost, cache: &Path) -> Result<Self> {
        let downloads = cache.join("downloads");
        std::fs::create_dir_all(&downloads)
            .map_err(|e| Error::permanent(format!("make {}", downloads.display())).caused_by(e))?;
        let (name, version) = PACKAGE.split_once("==").unwrap_or((PACKAGE, ""));
        let archive = downloads.join(format!("{name}-{version}.tar.gz"));
        if !archive.exists() {
            println!("fetch    {PACKAGE}, its source distribution");
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest"]);
            pip.arg(&downloads).arg(PACKAGE);
            run(pip, "fetch the demo's project").await?;
        }
        let tree = downloads.join(format!("{name}-{version}"));
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&archive).arg("-C").arg(&downloads);
        run(tar, "unpack the demo's project").await?;

        let repo: RepoName =
            "demo/flask".parse().map_err(|e| Error::permanent("name the demo's repo").caused_by(e))?;
        let upstream = host.create_repo(&repo)?;
        let script = r#"
            set -eu
            export GIT_AUTHOR_NAME='Upstream Author' GIT_AUTHOR_EMAIL=upstream@example.invalid
            export GIT_COMMITTER_NAME="$GIT_AUTHOR_NAME" GIT_COMMITTER_EMAIL="$GIT_AUTHOR_EMAIL"
            rm -rf .git && git init -q -b main .
            git add pyproject.toml README* LICENSE* src && git commit -q -m 'Import the library'
            git add tests && git commit -q -m 'Import its test suite'
            git add -A && git commit -q -m 'Import documentation and examples'
            git push -q "$1" HEAD:refs/heads/main
            cd / && rm -rf "$2"
        "#;
        let mut git = Command::new("sh");
        git.args(["-c", script, "sh"]).arg(upstream.path()).arg(&tree).current_dir(&tree);
        run(git, "turn the demo's project into a repository").await?;

        let mut spec = bare_spec(
            repo.clone(),
            host.url(&repo),
            Base::Packages {
                suite: "bookworm".into(),
                include: ["git", "ca-certificates", "python3", "python3-venv"].map(String::from).to_vec(),
            },
        );
        let phases = &mut spec.image.phases;
        phases.setup = vec![
            "python3 -m venv /opt/venv".into(),
            "/opt/venv/bin/pip install --quiet --disable-pip-version-check -e . pytest==8.3.5 click==8.1.8 werkzeug==3.0.6".into(),
        ];
        phases.update = vec!["/opt/venv/bin/pip install --quiet --disable-pip-version-check -e .".into()];
        phases.warm = vec!["/opt/venv/bin/python -m pytest -q -x".into()];
        phases.verify = vec!["/opt/venv/bin/python -c 'import flask'".into()];
        spec.image.ca_certificates = host_certificates();
        Ok(Self {
            spec,
            docker: config::DockerSettings::default(),
            what: format!("{PACKAGE} from the package registry, 3 commits"),
            tests: "/opt/venv/bin/python -m pytest -q".into(),
            first_file: Some("pyproject.toml".into()),
        })
    }

    /// A clone of somebody's repository on an image of theirs.
    pub async fn of_url(host: &GitHost, url: &str, base: &str) -> Result<Self> {
        let last =
            url.trim_end_matches('/').trim_end_matches(".git").rsplit(['/', ':']).next().unwrap_or("repo");
        let repo: RepoName = format!("demo/{last}")
            .parse()
            .map_err(|e| Error::invalid("name the demo's repo").caused_by(e))?;
        let branch = clone(host, &repo, url, None).await?;
        let mut spec = bare_spec(repo.clone(), host.url(&repo), Base::Reference(base.to_owned()));
        spec.branch = branch;
        spec.image.ca_certificates = host_certificates();
        Ok(Self {
            spec,
            docker: config::DockerSettings::default(),
            what: format!("a clone of {url} on {base}"),
            tests: "git log --oneline -5 && git status --short | head".into(),
            first_file: None,
        })
    }

    /// The first repo of a configuration file, cloned.
    pub async fn of_config(host: &GitHost, file: &Path) -> Result<Self> {
        let config = config::Config::load(file).map_err(|e| Error::invalid(e.to_string()))?;
        let mut spec = config.repos()[0].clone();
        clone(host, &spec.name, &spec.url, Some(&spec.branch)).await?;
        let what = format!("a clone of {}, the first repo of {}", spec.url, file.display());
        spec.url = host.url(&spec.name);
        // A demo needs a pool to show.
        spec.pool.min = spec.pool.min.max(1);
        let tests = spec.image.phases.warm.last().or(spec.image.phases.verify.last()).map(|c| c.run.clone());
        Ok(Self {
            what,
            tests: tests.unwrap_or_else(|| "git log --oneline -5".into()),
            first_file: None,
            docker: config.settings().docker.clone(),
            spec,
        })
    }
}

/// Mirrors `url` into the demo's host; answers the branch to work from.
async fn clone(host: &GitHost, repo: &RepoName, url: &str, branch: Option<&Branch>) -> Result<Branch> {
    println!("fetch    a clone of {url}");
    let path = host.path(repo);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::permanent("make the demo's host").caused_by(e))?;
    }
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--bare", url]).arg(&path).env("GIT_TERMINAL_PROMPT", "0");
    run(git, &format!("clone {url}")).await?;
    let mut head = Command::new("git");
    head.arg("-C").arg(&path).args(["symbolic-ref", "--short", "HEAD"]);
    let default = run(head, "read the default branch").await?;
    match branch {
        Some(branch) => Ok(branch.clone()),
        None => default.trim().parse().map_err(|e| Error::permanent("read the default branch").caused_by(e)),
    }
}

fn bare_spec(name: RepoName, url: String, base: Base) -> RepoSpec {
    const MINUTE: Duration = Duration::from_secs(60);
    RepoSpec {
        name,
        url,
        branch: "main".parse().unwrap_or_else(|_| unreachable!("`main` is a branch name")),
        workspace: "/workspace".into(),
        image: Recipe { keep: 2, step_timeout: MINUTE * 10, ..Recipe::of(base) },
        rollout: domain::RolloutPolicy::default(),
        pool: PoolPolicy { max: 4, member_max_age: MINUTE * 60, ..PoolPolicy::default() },
        session: SessionPolicy {
            timeout: MINUTE * 60,
            idle_end: None,
            branch_pattern: "hotbed/{session}".into(),
            sync_timeout: MINUTE,
        },
        pushes: Default::default(),
        pulls: Default::default(),
        resources: Resources { cpu_millis: 2000, memory: 2 << 30, pids: 512 },
        network: Network::Bridge,
    }
}

/// Certificates that this host trusts beyond its distribution's: an inspecting proxy's, where there is one.
fn host_certificates() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/local/share/ca-certificates") else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "crt"))
        .collect();
    files.sort();
    files
}

/// Runs a program to its end; its errors are its last lines.
pub(super) async fn run(mut command: Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Error::invalid(what.to_owned()).caused_by(e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("; ");
    Err(Error::permanent(format!("{what}: {}: {tail}", output.status)))
}
