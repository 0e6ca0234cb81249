//! `.hotbed.yaml`: what a repository may say, and that no file makes anything but a recipe or errors with places.

use std::collections::BTreeMap;

use config::{Config, ConfigErrors, MAX_REPOSITORY_FILE, repository_file};
use domain::{Base, Command, RecipeKey, RecipePart, RepositoryFile, SecretSource, Winner};
use proptest::prelude::*;

use crate::parse;

fn read(text: &str, may_set: &[RecipeKey]) -> Result<RecipePart, ConfigErrors> {
    let policy = RepositoryFile { may_set: may_set.iter().copied().collect(), ..RepositoryFile::default() };
    let secrets = BTreeMap::from([("TOKEN".to_owned(), SecretSource::Env("X".into()))]);
    repository_file(text.as_bytes(), ".hotbed.yaml", &policy, &secrets)
}

fn by_default(text: &str) -> Result<RecipePart, ConfigErrors> {
    read(text, &RepositoryFile::default().may_set.into_iter().collect::<Vec<_>>())
}

#[test]
fn what_it_may_set_is_taken() {
    let text = "# ours\nenv: { A: \"1\" }\nsetup: make deps\nupdate:\n  - { run: npm ci, inputs: [package-lock.json] }\n";
    let part = by_default(text).unwrap();
    assert_eq!((part.base, part.env["A"].as_str()), (None, "1"));
    assert_eq!(part.phases.setup, ["make deps".into()]);
    let update = Command { inputs: vec!["package-lock.json".into()], ..Command::new("npm ci") };
    assert_eq!(part.phases.update, [update]);
    for nothing in ["", "# only a comment\n\n", "{}", "\u{feff}# marked\n"] {
        assert_eq!(by_default(nothing).unwrap(), RecipePart::default(), "{nothing:?}");
    }
    let base = read("base: { dockerfile: Dockerfile }", &[RecipeKey::Base]).unwrap().base;
    assert!(matches!(base, Some(Base::Dockerfile(_))), "{base:?}");
    let named = "setup: [ { run: npm ci, secrets: [TOKEN] } ]";
    let part = read(named, &[RecipeKey::Setup, RecipeKey::Secrets]).unwrap();
    assert!(part.phases.setup[0].secrets.contains("TOKEN"));
}

/// Each thing that is wrong, with its place; nothing of the file is quoted but keys and words of its own errors.
#[test]
fn what_it_may_not_is_named_with_its_place() {
    let cases: [(&str, &[RecipeKey], &[&str]); 8] = [
        (
            "setup: make\nbase: debian\n",
            &[RecipeKey::Setup],
            &[".hotbed.yaml:2:1: base: a repository may not set `base` here; expected `setup`"],
        ),
        ("secrets: { A: { env: HOME } }\n", &[RecipeKey::Secrets], &["unknown key `secrets`"]),
        (
            "setup:\n  - { run: make, secrets: [TOKEN] }\n",
            &[RecipeKey::Setup],
            &[".hotbed.yaml:2:28: setup[0].secrets[0]: a repository's own commands get no secrets here"],
        ),
        (
            "setup:\n  - { run: make, secrets: [OTHER] }\n",
            &[RecipeKey::Setup, RecipeKey::Secrets],
            &["there is no secret `OTHER`"],
        ),
        ("setup: 1\nnonsense: 2\n", &[RecipeKey::Setup], &[":1:8: setup:", ":2:1: nonsense: unknown key"]),
        ("a: &x [1]\nsetup: *x\n", &[RecipeKey::Setup], &["aliases are not used here"]),
        ("setup: [\n", &[RecipeKey::Setup], &[".hotbed.yaml:"]),
        ("- setup\n", &[RecipeKey::Setup], &[".hotbed.yaml:1:"]),
    ];
    for (text, may_set, parts) in cases {
        let lines = read(text, may_set).unwrap_err().lines().join("\n");
        for part in parts {
            assert!(lines.contains(part), "no {part:?} in:\n{lines}");
        }
    }
    let long = "#".repeat(MAX_REPOSITORY_FILE + 1);
    assert!(by_default(&long).unwrap_err().to_string().contains("262145 bytes"));
    let many = format!("setup: [{}]", "a,".repeat(30_000));
    assert!(by_default(&many).unwrap_err().to_string().contains("20000 values"));
}

#[test]
fn the_operator_says_what_it_may() {
    let text = r#"
defaults: { image: { base: debian } }
repos:
  - { name: a/b, url: /srv/b.git }
  - name: a/c
    url: /srv/c.git
    image: { repository_file: { read: false } }
  - name: a/d
    url: /srv/d.git
    image: { repository_file: { wins: repository, may_set: [base, setup] } }
"#;
    let config = parse(text).unwrap();
    let policies: Vec<_> = config.repos().iter().map(|r| r.image.repository_file.clone()).collect();
    assert_eq!(policies[0], RepositoryFile::default());
    assert!(
        !policies[0].may_set.contains(&RecipeKey::Base) && !policies[0].may_set.contains(&RecipeKey::Secrets)
    );
    assert!(policies[0].read && !policies[1].read);
    assert_eq!(policies[2].wins, Winner::Repository);
    assert_eq!(policies[2].may_set, [RecipeKey::Base, RecipeKey::Setup].into());
    let wrong = parse(&text.replace("[base, setup]", "[base, network]")).unwrap_err().to_string();
    assert!(wrong.contains("`network` is not a part of a recipe"), "{wrong}");
    let schema = Config::repository_schema();
    assert_eq!(schema["properties"].as_object().unwrap().len(), 9, "{schema}");
    assert_eq!(schema["additionalProperties"], false);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_recipe_or_errors(text in "(setup|update|base|env|services|inputs|secrets|run|name|TOKEN|[ :\\-\\[\\]{},&*|>'\"#\n]|[a-z0-9]){0,80}") {
        if let Err(errors) = by_default(&text) {
            prop_assert!(!errors.lines().is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }
}
