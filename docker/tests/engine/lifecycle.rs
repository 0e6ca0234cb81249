//! Start, list, pause, resume, events, stop; and who is believed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, NetworkCreateRequest};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions, StartContainerOptions};
use domain::ports::{Backend, EngineEvent, ObservedPhase};
use domain::{ErrorKind, Network, SandboxId};
use futures_util::{StreamExt, stream};

use crate::proxy::{Proxy, Rule};
use crate::world::{World, name};

#[tokio::test]
async fn a_sandbox_starts_pauses_resumes_and_stops() {
    let world = World::new().await;
    let base = world.base().await;
    let wanted = world.wanted(&base);
    let engine_id = world.backend.start(&wanted).await.unwrap();
    world.settled(wanted.id).await;
    let list = world.backend.list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].id, &list[0].engine_id), (wanted.id, &engine_id));
    assert_eq!(list[0].phase, ObservedPhase::Running);

    // Each twice: the second finds it done.
    for _ in 0..2 {
        world.backend.pause(wanted.id).await.unwrap();
        assert_eq!(world.phase(wanted.id).await, Some(ObservedPhase::Paused));
    }
    for _ in 0..2 {
        world.backend.resume(wanted.id).await.unwrap();
        assert_eq!(world.phase(wanted.id).await, Some(ObservedPhase::Running));
    }
    // A paused one can be stopped as well.
    world.backend.pause(wanted.id).await.unwrap();
    for _ in 0..2 {
        world.backend.stop(wanted.id).await.unwrap();
        assert_eq!(world.phase(wanted.id).await, None);
    }
    assert_eq!(world.backend.pause(wanted.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.backend.resume(wanted.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.end().await;
}

// F48
#[tokio::test]
async fn a_second_start_is_the_first() {
    let world = World::new().await;
    let base = world.base().await;
    let wanted = world.wanted(&base);
    let (a, b) = tokio::join!(world.backend.start(&wanted), world.backend.start(&wanted));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a, b);
    assert_eq!(world.backend.start(&wanted).await.unwrap(), a);
    assert_eq!(world.backend.list().await.unwrap().len(), 1);
    world.end().await;
}

// F48: the answer to create was lost, or create was done and start was not.
#[tokio::test]
async fn a_start_whose_answer_was_lost_is_taken_up() {
    let world = World::new().await;
    let base = world.base().await;
    for (at, rule, kind) in [
        ("/containers/create", Rule::LoseAnswer, ErrorKind::Unavailable),
        ("/start ", Rule::Hang, ErrorKind::Timeout),
        ("/start ", Rule::LoseAnswer, ErrorKind::Unavailable),
    ] {
        let socket = world.path(&format!("{at}{rule:?}").replace(['/', ' '], "-"));
        let _proxy = Proxy::new(&socket, world.socket(), move |line| match line.contains(at) {
            true => rule.clone(),
            false => Rule::Pass,
        });
        let cut_off = world.another(|c| {
            c.host = Some(format!("unix://{}", socket.display()));
            c.deadlines.start = Duration::from_secs(2);
        });
        let wanted = world.wanted(&base);
        let error = cut_off.start(&wanted).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{at}: {error:?}");
        let engine_id = world.backend.start(&wanted).await.unwrap();
        world.settled(wanted.id).await;
        assert_eq!(world.inspect(wanted.id).await.id, Some(engine_id));
        assert_eq!(world.phase(wanted.id).await, Some(ObservedPhase::Running));
    }
    world.end().await;
}

fn foreign(world: &World, labels: HashMap<String, String>, image: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["/nothing".to_owned()]),
        labels: Some(labels),
        host_config: Some(bollard::models::HostConfig {
            network_mode: Some("none".to_owned()),
            binds: Some(vec![format!("{}:/run/hotbed:ro", world.backend.shared_dir().display())]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn make_foreign(world: &World, name: &str, body: ContainerCreateBody) -> String {
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
    world.raw.create_container(Some(options), body).await.unwrap().id
}

async fn remove_foreign(world: &World, engine_id: &str) {
    let options = RemoveContainerOptions { force: true, ..Default::default() };
    world.raw.remove_container(engine_id, Some(options)).await.unwrap();
}

// F6
#[tokio::test]
async fn forged_labels_are_not_believed() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let real = world.inspect(id).await.config.unwrap().labels.unwrap();

    let instance = world.config.instance.to_string();
    let other = SandboxId::new();
    let forged = |id: SandboxId, mark: &str| {
        let labels = [
            ("hotbed.instance", instance.as_str()),
            ("hotbed.sandbox", &id.to_string()),
            ("hotbed.mark", mark),
        ];
        labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    };
    let stem = format!("forged-{other}");
    let made = [
        make_foreign(
            &world,
            &format!("{stem}-1"),
            foreign(&world, forged(other, &"0".repeat(64)), base.as_str()),
        )
        .await,
        // Under the right name, with the mark of another sandbox.
        make_foreign(
            &world,
            &name(other),
            foreign(&world, forged(other, &real["hotbed.mark"]), base.as_str()),
        )
        .await,
        // Every label of a real one, copied.
        make_foreign(&world, &format!("{stem}-2"), foreign(&world, real, base.as_str())).await,
    ];
    let list = world.backend.list().await.unwrap();
    assert_eq!(list.iter().map(|s| s.id).collect::<Vec<_>>(), [id]);
    // F43: nor is it paused, captured, started or removed.
    assert_eq!(world.backend.pause(other).await.unwrap_err().kind(), ErrorKind::Conflict);
    let mut wanted = world.wanted(&base);
    wanted.id = other;
    wanted.boot.sandbox = other;
    let error = world.backend.start(&wanted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.context().contains("not ours"), "{error}");
    world.backend.stop(other).await.unwrap();
    for engine_id in &made {
        remove_foreign(&world, engine_id).await; // panics if it is gone
    }
    world.end().await;
}

// F6: another instance on the same daemon, and one with our id and another secret.
#[tokio::test]
async fn instances_do_not_see_each_other() {
    let (one, two) = (World::new().await, World::new().await);
    let base = one.base().await;
    let id = one.started(&base).await;
    assert_eq!(two.backend.list().await.unwrap(), []);
    assert_eq!(two.backend.list_captures().await.unwrap(), []);
    let impostor = one.another(|c| c.secret = [1; 32]);
    assert_eq!(impostor.list().await.unwrap(), []);
    assert_eq!(impostor.list_captures().await.unwrap(), []);
    impostor.stop(id).await.unwrap();
    assert_eq!(one.phase(id).await, Some(ObservedPhase::Running));
    assert_eq!(impostor.remove_capture(&base).await.unwrap_err().kind(), ErrorKind::Conflict);
    two.end().await;
    // The impostor shares the run directory, and its stop took the directory away: a stop of ours must not mind.
    one.end().await;
}

#[tokio::test]
async fn events_tell_of_ends() {
    let world = World::new().await;
    let base = world.base().await;
    let mut events = world.backend.events().await.unwrap();
    // Before the stream is polled for the first time: it must not be lost.
    let id = world.started(&base).await;
    world.backend.stop(id).await.unwrap();
    let seen = async {
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            let gone = event.gone;
            seen.push(event);
            if gone {
                break;
            }
        }
        seen
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), seen).await.expect("no event");
    let expected = [false, true].map(|gone| EngineEvent { sandbox: id, gone });
    assert_eq!(seen, expected);
    world.end().await;
}

#[tokio::test]
async fn a_sandbox_whose_process_ended_is_seen() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let mut events = world.backend.events().await.unwrap();
    let options = None::<bollard::query_parameters::KillContainerOptions>;
    world.raw.kill_container(&name(id), options).await.unwrap();
    let gone = async { while !events.next().await.unwrap().unwrap().gone {} };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("no event");
    assert_eq!(world.phase(id).await, Some(ObservedPhase::Exited));
    world.end().await;
}

#[tokio::test]
async fn a_missing_image_is_named() {
    let world = World::new().await;
    let missing = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    let error = world.backend.start(&world.wanted(&missing)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.context().contains(missing.as_str()), "{error}");
    world.end().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing() {
    let world = World::new().await;
    let base = world.base().await;
    std::fs::remove_file(world.backend.shared_dir().join("hotbed-agent")).unwrap();
    let error = world.backend.start(&world.wanted(&base)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error:?}");
    assert!(error.context().contains("agent's binary"), "{error}");
    assert_eq!(world.backend.list().await.unwrap(), []);
    world.end().await;
}

#[tokio::test]
async fn the_own_network_is_no_default_bridge() {
    let world = World::new().await;
    let base = world.base().await;
    let mut ids = Vec::new();
    // Together, so that there are two who want to make it.
    let wanted: Vec<_> = (0..2)
        .map(|_| {
            let mut wanted = world.wanted(&base);
            wanted.network = Network::Bridge;
            wanted
        })
        .collect();
    for result in futures_util::future::join_all(wanted.iter().map(|w| world.backend.start(w))).await {
        result.unwrap();
    }
    for wanted in &wanted {
        let settings = world.inspect(wanted.id).await.network_settings.unwrap().networks.unwrap();
        ids.extend(settings.into_values().map(|n| n.network_id.unwrap()));
    }
    assert_eq!(ids.len(), 2, "one network each");
    assert_eq!(ids[0], ids[1], "the same");
    let options = None::<bollard::query_parameters::InspectNetworkOptions>;
    let network = world.raw.inspect_network(&ids[0], options).await.unwrap();
    let instance = world.config.instance.to_string();
    assert_eq!(network.name, Some(format!("hotbed-{}", &instance[instance.len() - 12..])));
    let options = network.options.unwrap();
    assert_eq!(options["com.docker.network.bridge.enable_icc"], "false");
    assert!(!options.contains_key("com.docker.network.bridge.default_bridge"), "{options:?}");

    // In use it stays; unused it goes; gone it is made again, also where this process believes that it is there.
    world.backend.dispose().await.unwrap();
    assert!(world.left().await.iter().any(|l| l.starts_with("network")));
    for wanted in &wanted {
        world.backend.stop(wanted.id).await.unwrap();
    }
    let mut third = world.wanted(&base);
    third.network = Network::Bridge;
    world.backend.start(&third).await.unwrap();
    world.backend.stop(third.id).await.unwrap();
    world.raw.remove_network(&ids[0]).await.unwrap();
    world.backend.start(&third).await.unwrap();
    world.end().await;
}

/// F49: what a member has in the network goes with it, however it goes, so that whoever gets its address next is not cut
/// off by what was meant for another. No port of it is published, so no rule of the engine's is about one member alone.
#[tokio::test]
async fn f49_network_rules_go_with_their_member() {
    let world = World::new().await;
    let base = world.base().await;
    let mut wanted = Vec::new();
    for _ in 0..3 {
        let mut one = world.wanted(&base);
        one.network = Network::Bridge;
        world.backend.start(&one).await.unwrap();
        wanted.push(one);
    }
    let instance = world.config.instance.to_string();
    let network = format!("hotbed-{}", &instance[instance.len() - 12..]);
    let mut addresses = BTreeSet::new();
    for one in &wanted {
        let found = world.inspect(one.id).await;
        let host = found.host_config.unwrap();
        assert!(host.port_bindings.unwrap_or_default().is_empty() && host.publish_all_ports != Some(true));
        let settings = found.network_settings.unwrap();
        assert!(settings.ports.unwrap_or_default().is_empty());
        addresses.insert(settings.networks.unwrap()[&network].ip_address.clone().unwrap());
    }
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    assert_eq!(world.held_in(&network).await, addresses);
    assert!(world.rules_about(&addresses).is_empty());

    // By us; killed by somebody and then by us; removed behind our back.
    world.backend.stop(wanted[0].id).await.unwrap();
    let kill = None::<bollard::query_parameters::KillContainerOptions>;
    world.raw.kill_container(&name(wanted[1].id), kill).await.unwrap();
    world.backend.stop(wanted[1].id).await.unwrap();
    let force = RemoveContainerOptions { force: true, ..Default::default() };
    world.raw.remove_container(&name(wanted[2].id), Some(force)).await.unwrap();
    world.backend.stop(wanted[2].id).await.unwrap();
    assert_eq!(world.held_in(&network).await, BTreeSet::new(), "addresses are held by nobody");
    assert!(world.rules_about(&addresses).is_empty());

    // And the network is as good as before.
    let mut next = world.wanted(&base);
    next.network = Network::Bridge;
    world.backend.start(&next).await.unwrap();
    assert_eq!(world.held_in(&network).await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_network_of_the_same_name_is_not_ours() {
    let world = World::new().await;
    let base = world.base().await;
    let instance = world.config.instance.to_string();
    let name = format!("hotbed-{}", &instance[instance.len() - 12..]);
    let request = NetworkCreateRequest { name, ..Default::default() };
    let foreign = world.raw.create_network(request).await.unwrap().id;
    let mut wanted = world.wanted(&base);
    wanted.network = Network::Bridge;
    let error = world.backend.start(&wanted).await.unwrap_err();
    world.backend.dispose().await.unwrap();
    world.raw.remove_network(&foreign).await.unwrap(); // it was left alone
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    world.end().await;
}

#[tokio::test]
async fn a_named_network_must_be_one_for_sandboxes() {
    let world = World::new().await;
    let base = world.base().await;
    for bad in ["host", "bridge", "default", "container:x", "hotbed-no-such-network"] {
        let mut wanted = world.wanted(&base);
        wanted.network = Network::Named(bad.to_owned());
        let error = world.backend.start(&wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}: {error:?}");
        assert!(error.context().contains(bad), "{error}");
    }
    world.end().await;
}

// F38
#[tokio::test]
async fn a_hundred_starts_and_stops_leave_nothing() {
    let world = World::new().await;
    let base = world.base().await;
    stream::iter(0..100)
        .for_each_concurrent(6, |n| {
            let (world, base) = (&world, &base);
            async move {
                let mut wanted = world.wanted(base);
                if n % 5 == 0 {
                    wanted.network = Network::Bridge;
                }
                match n % 3 {
                    // Given up half way: whatever came of it, a stop ends it.
                    0 => {
                        let limit = Duration::from_millis(3 * n);
                        let _ = tokio::time::timeout(limit, world.backend.start(&wanted)).await;
                    }
                    _ => drop(world.backend.start(&wanted).await.unwrap()),
                }
                world.backend.stop(wanted.id).await.unwrap();
            }
        })
        .await;
    // A create that was given up may end after its stop; the next look finds it.
    super::world::wait_for("the engine to hold no sandbox", || async {
        for sandbox in world.backend.list().await.unwrap() {
            world.backend.stop(sandbox.id).await.unwrap();
        }
        !world.left().await.iter().any(|l| l.starts_with("container"))
    })
    .await;
    world.backend.sweep_run_dirs(&HashSet::new()).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn run_directories_are_swept() {
    let world = World::new().await;
    let base = world.base().await;
    let (kept, dead) = (world.started(&base).await, world.started(&base).await);
    let options = RemoveContainerOptions { force: true, ..Default::default() };
    world.raw.remove_container(&name(dead), Some(options)).await.unwrap();
    let swept = world.backend.sweep_run_dirs(&HashSet::from([kept])).await.unwrap();
    assert_eq!(swept, [dead]);
    assert!(world.config.run_dir.join("sandboxes").join(kept.to_string()).exists());
    world.end().await;
}

// F44: another process of the same instance finds what is there by labels alone.
#[tokio::test]
async fn a_new_process_finds_what_the_old_one_made() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let heir = world.another(|_| {});
    assert_eq!(heir.list().await.unwrap()[0].id, id);
    assert_eq!(heir.list_captures().await.unwrap()[0].digest, base);
    heir.stop(id).await.unwrap();
    let options = None::<StartContainerOptions>;
    assert!(world.raw.start_container(&name(id), options).await.is_err(), "it is gone");
    world.end().await;
}
