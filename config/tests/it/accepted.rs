//! What is accepted, and what it becomes.

use std::path::Path;
use std::time::Duration;

use config::{Config, DockerSettings, ForgeSettings, ListenAddress};
use domain::{Base, Budget, Command, Network, Ready, SecretSource, Service, Window};

use crate::{here, hold, parse};

fn example(name: &str) -> Config {
    Config::load(&here(&format!("../examples/{name}"))).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_example_is_accepted() {
    let mut count = 0;
    for entry in std::fs::read_dir(here("../examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            Config::load(&path).unwrap_or_else(|e| panic!("{e}"));
            count += 1;
        }
    }
    assert!(count >= 2);
}

#[test]
fn the_least_has_defaults_for_everything_else() {
    let config = example("minimal.yaml");
    assert_eq!(config.warnings(), []);
    let settings = config.settings();
    assert_eq!(settings.listen, ListenAddress::Tcp("127.0.0.1:7070".parse().unwrap()));
    assert_eq!(settings.state_dir, Path::new("/var/lib/hotbed"));
    assert_eq!(settings.docker, DockerSettings::default());
    assert_eq!(settings.forge, ForgeSettings::Local);
    assert_eq!(settings.budget.memory, None);
    let [repo] = config.repos() else { panic!("{:?}", config.repos()) };
    assert_eq!(
        (repo.name.as_str(), repo.branch.as_str(), repo.workspace.as_str()),
        ("acme/api", "main", "/workspace")
    );
    assert_eq!(repo.image.base, Base::Reference("debian:bookworm".into()));
    assert_eq!(repo.image.schedule, "*/30 * * * *");
    assert_eq!(repo.image.max_age, Duration::from_secs(24 * 3600));
    assert_eq!((repo.image.keep, repo.image.step_timeout), (3, Duration::from_secs(1800)));
    assert_eq!((repo.pool.min, repo.pool.max), (1, 10));
    assert_eq!(repo.pool.member_max_age, Duration::from_secs(6 * 3600));
    assert_eq!(repo.pool.warmup_ttl, Duration::from_secs(120));
    assert_eq!((repo.session.timeout, repo.session.idle_end), (Duration::from_secs(4 * 3600), None));
    assert_eq!(repo.session.branch_pattern, "hotbed/{session}");
    assert_eq!(repo.session.sync_timeout, Duration::from_secs(60));
    assert_eq!(
        (repo.resources.cpu_millis, repo.resources.memory, repo.resources.pids),
        (2000, 4 << 30, 1024)
    );
    assert_eq!(repo.network, Network::Bridge);
}

#[test]
fn everything_that_is_written_arrives() {
    let config = example("full.yaml");
    let settings = config.settings();
    assert_eq!(settings.docker.host.as_deref(), Some("unix:///var/run/docker.sock"));
    assert_eq!(settings.registry.as_ref().map(|r| r.push.as_str()), Some("registry.example/hotbed"));
    assert_eq!((settings.budget.memory, settings.budget.cpu_millis), (Some(48 << 30), Some(24_000)));
    let [api, tools] = config.repos() else { panic!("{:?}", config.repos()) };
    assert_eq!(api.session.idle_end, Some(Duration::from_secs(45 * 60)), "from the defaults");
    assert_eq!(tools.session.idle_end, Some(Duration::from_secs(45 * 60)));
    let secrets = ["PIP_INDEX_URL".to_owned()].into();
    assert_eq!(api.image.phases.setup, [Command { secrets, ..Command::new("pip install -e .[dev]") }]);
    assert_eq!(api.image.secrets["PIP_INDEX_URL"], SecretSource::File("/etc/hotbed/pip-index".into()));
    assert_eq!(api.image.phases.warm, ["pytest -q -x".into()]);
    assert_eq!(api.image.phases.verify, ["python -c 'import api'".into()]);
    assert_eq!(api.image.env["PIP_DISABLE_PIP_VERSION_CHECK"], "1");
    assert_eq!((api.pool.min, api.pool.max), (1, 20));
    assert_eq!(tools.url, "git@github.com:acme/tools.git");
    let base = Base::Packages { suite: "bookworm".into(), include: vec!["git".into(), "python3".into()] };
    assert_eq!(tools.image.base, base);
    assert_eq!(tools.image.schedule, "0 0 * * *");
    assert_eq!((tools.resources.cpu_millis, tools.resources.memory), (500, 512 << 20));
    assert_eq!(tools.network, Network::None);
}

#[test]
fn a_command_is_a_line_or_says_what_it_needs() {
    let text = r#"
repos:
  - name: a/b
    url: /srv/b.git
    image:
      base: debian
      setup:
        - make deps
        - { run: createdb api, user: "postgres:ssl-cert", timeout: 2m, workdir: /opt, env: { A: "1" } }
      warm: [ { run: make test, required: true } ]
      verify: make smoke
      update: [ { run: npm ci, inputs: [package-lock.json, "web/**"] } ]
      prepare: [ { run: make env, timeout: 30s } ]
      start: redis-server --daemonize yes
      services:
        - { name: db, run: postgres, ready: { port: 5432, timeout: 30s } }
        - { name: web, run: npm start }
"#;
    let config = parse(text).unwrap();
    let phases = &config.repos()[0].image.phases;
    let createdb = Command {
        user: Some("postgres:ssl-cert".into()),
        timeout: Some(Duration::from_secs(120)),
        workdir: Some("/opt".into()),
        env: [("A".into(), "1".into())].into(),
        ..Command::new("createdb api")
    };
    assert_eq!(phases.setup, ["make deps".into(), createdb]);
    let inputs = vec!["package-lock.json".into(), "web/**".into()];
    assert_eq!(phases.update, [Command { inputs, ..Command::new("npm ci") }]);
    assert_eq!((phases.prepare.len(), &phases.start), (1, &vec!["redis-server --daemonize yes".into()]));
    let ready = Ready { port: Some(5432), timeout: Duration::from_secs(30), ..Ready::default() };
    let db = Service { ready, ..Service { name: "db".into(), run: "postgres".into(), ..Service::default() } };
    let web = Service { name: "web".into(), run: "npm start".into(), ..Service::default() };
    assert_eq!(phases.services, [db, web]);
    assert_eq!(phases.warm, [Command { required: true, ..Command::new("make test") }]);
    assert_eq!(phases.verify, ["make smoke".into()]);
}

#[test]
fn secrets_are_found_beside_the_file_and_come_by_name() {
    let text = r#"
defaults:
  image: { base: debian, secrets: { NPM: { env: NPM_TOKEN }, PIP: { env: PIP_URL } } }
repos:
  - name: a/b
    url: /srv/b.git
    image:
      secrets: { PIP: { file: secrets/pip }, KEY: { file: /etc/key } }
      setup: [ { run: npm ci, secrets: [NPM, KEY] }, make ]
"#;
    let config = Config::parse(text, "hotbed.yaml", Path::new("/etc/hotbed")).unwrap();
    let image = &config.repos()[0].image;
    let sources: Vec<_> =
        image.secrets.iter().map(|(name, source)| (name.as_str(), source.clone())).collect();
    assert_eq!(
        sources,
        [
            ("KEY", SecretSource::File("/etc/key".into())),
            ("NPM", SecretSource::Env("NPM_TOKEN".into())),
            ("PIP", SecretSource::File("/etc/hotbed/secrets/pip".into())),
        ]
    );
    let named: Vec<Vec<_>> = image.phases.setup.iter().map(|c| c.secrets.iter().collect()).collect();
    assert_eq!(named, [vec!["KEY", "NPM"], vec![]]);
    assert_eq!(config.warnings(), []);
}

#[test]
fn what_has_no_effect_is_said_once_each() {
    let config = example("full.yaml");
    let warned: Vec<&str> = config.warnings().iter().map(|w| w.path.as_str()).collect();
    assert_eq!(warned, ["defaults.session.idle.pause"]);
    let line = config.warnings()[0].to_string();
    assert!(
        line.ends_with(
            ": defaults.session.idle.pause: idle sandboxes are not paused by this version; it has no effect"
        ),
        "{line}"
    );
    assert!(!line.contains('\n'));
}

#[test]
fn a_pool_follows_what_its_section_says() {
    let config = example("full.yaml");
    let pool = &config.repos()[0].pool;
    assert_eq!((pool.min, pool.max, pool.target_hit_rate), (1, 20, Some(0.99)));
    assert_eq!(pool.idle_after, Some(Duration::from_secs(7 * 24 * 3600)));
    let days = [true, true, true, true, true, false, false];
    let window = Window { days, from: 8 * 60, to: 19 * 60, zone: "Europe/Berlin".into(), min: 4 };
    assert_eq!(pool.windows, [window]);
    let budget = Budget { memory: Some(48 << 30), cpu_millis: Some(24_000), sandboxes: Some(40) };
    assert_eq!(config.settings().budget, budget);
    let unset = &config.repos()[1].pool;
    assert_eq!((unset.target_hit_rate, unset.idle_after, unset.windows.len()), (None, None, 0));
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let text = "listen: 0.0.0.0:7070\nrepos:\n  - name: a/b\n    url: /srv/b.git\n    image: { base: debian, env: { NPM_TOKEN: hunter2 } }\n";
    let config = parse(text).unwrap();
    let paths: Vec<&str> = config.warnings().iter().map(|w| w.path.as_str()).collect();
    assert_eq!(paths, ["listen", "repos[0].image.env.NPM_TOKEN"]);
    assert!(!config.warnings().iter().any(|w| w.to_string().contains("hunter2")));
    assert_eq!(parse("repos: []\n").unwrap().warnings()[0].path, "repos");
    let named = parse("backend: { docker: { network: n } }\nrepos: []\n").unwrap();
    assert_eq!(named.warnings()[0].path, "backend.docker.network");
}

#[test]
fn defaults_lie_under_each_repo_key_by_key() {
    let text = r#"
defaults:
  branch: trunk
  image: { base: { packages: { suite: bookworm } }, setup: [ "a" ], env: { A: "1", B: "1" }, keep: 5 }
  pool: { min: 2, max: 4 }
  network: { use: shared }
repos:
  - { name: a/one, url: /srv/one.git }
  - name: a/two
    url: /srv/two.git
    branch: main
    image: { base: debian:bookworm, setup: [ "b", "c" ], env: { B: "2" } }
    pool: { max: 9 }
    network: none
"#;
    let config = parse(text).unwrap();
    let [one, two] = config.repos() else { panic!() };
    assert_eq!((one.branch.as_str(), two.branch.as_str()), ("trunk", "main"));
    assert_eq!(two.image.base, Base::Reference("debian:bookworm".into()));
    assert_eq!(one.image.phases.setup, ["a".into()]);
    assert_eq!(two.image.phases.setup, ["b".into(), "c".into()], "lists are replaced");
    assert_eq!((two.image.env["A"].as_str(), two.image.env["B"].as_str(), two.image.keep), ("1", "2", 5));
    assert_eq!((two.pool.min, two.pool.max), (2, 9));
    assert_eq!((&one.network, &two.network), (&Network::Named("shared".into()), &Network::None));
}

#[test]
fn certificates_are_found_beside_the_file_and_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let pem = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIB\n-----END CERTIFICATE-----\n";
    std::fs::write(dir.path().join("all.pem"), pem).unwrap();
    std::fs::write(dir.path().join("one.pem"), pem).unwrap();
    let file = dir.path().join("hotbed.yaml");
    let text = "state_dir: state\nca_certificates: [all.pem]\nrepos:\n  - name: a/b\n    url: /srv/b.git\n    image: { base: debian, ca_certificates: [./one.pem] }\n";
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(
        config.repos()[0].image.ca_certificates,
        [dir.path().join("all.pem"), dir.path().join("./one.pem")]
    );
    assert_eq!(config.settings().state_dir, dir.path().join("state"));
    std::fs::remove_file(dir.path().join("one.pem")).unwrap();
    let errors = Config::load(&file).unwrap_err();
    assert!(errors.to_string().contains("`./one.pem` can't be used: it does not exist"), "{errors}");
}

#[test]
fn anchors_and_a_byte_order_mark_are_fine() {
    let text = "\u{feff}defaults:\n  image: &i { base: debian }\nrepos:\n  - { name: a/b, url: /srv/b.git, image: *i }\n";
    assert_eq!(parse(text).unwrap().repos().len(), 1);
}

#[test]
fn a_reload_says_what_changed_and_what_needs_a_restart() {
    let base = r#"
listen: 127.0.0.1:7070
budget: { memory: 8GiB }
repos:
  - { name: a/one, url: /srv/one.git, image: { base: debian }, pool: { min: 1 } }
  - { name: a/two, url: /srv/two.git, image: { base: debian }, pool: { min: 0 } }
"#;
    let old = parse(base).unwrap();
    assert!(old.diff(&old).is_empty());
    assert_eq!(old.diff(&old).to_string(), "no changes");
    let text = base
        .replace("127.0.0.1:7070", "unix:/run/h.sock")
        .replace("budget: { memory: 8GiB }", "backend: { docker: { runtime: runsc } }")
        .replace("pool: { min: 1 }", "pool: { min: 2, warmup_ttl: 3m }")
        .replace("a/two", "a/three");
    let diff = parse(&text).unwrap().diff(&old);
    assert!(diff.needs_restart());
    let wanted = "\
backend.docker.runtime: null -> \"runsc\" (needs a restart)
listen: \"127.0.0.1:7070\" -> \"unix:/run/h.sock\" (needs a restart)
budget.memory: 8589934592 -> null
a/three: added
a/two: removed
a/one: pool.min: 1 -> 2
a/one: pool.warmup_ttl: \"120s\" -> \"180s\"";
    assert_eq!(diff.to_string(), wanted);
    let hot = parse(&base.replace("8GiB", "9GiB")).unwrap().diff(&old);
    assert!(!hot.needs_restart() && !hot.is_empty());
}

#[test]
fn the_reference_in_docs_is_the_one_of_the_code() {
    hold(&here("../docs/configuration.md"), &Config::reference());
}
