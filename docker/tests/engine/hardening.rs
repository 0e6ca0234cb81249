//! What a sandbox may do, as the engine states it.

use bollard::models::{HostConfig, RestartPolicyNameEnum};
use domain::ports::Backend;

use crate::world::{TOKEN, World};

#[tokio::test]
async fn a_sandbox_is_held_tight() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let found = world.inspect(id).await;
    let all = format!("{found:?}");
    assert!(!all.contains(TOKEN), "the token is in the container's configuration");

    let config = found.config.unwrap();
    assert_eq!(config.entrypoint.unwrap(), ["/run/hotbed/hotbed-agent"]);
    assert_eq!(config.cmd.unwrap_or_default(), [] as [&str; 0]);
    assert_eq!(config.user.as_deref(), Some("0:0"));
    assert!(!config.env.unwrap_or_default().iter().any(|e| e.contains("HOTBED")));
    let labels = config.labels.unwrap();
    assert_eq!(labels["hotbed.sandbox"], id.to_string());
    assert_eq!(labels["hotbed.repo"], "acme/api");
    assert_eq!(labels["hotbed.mark"].len(), 64);

    let host: HostConfig = found.host_config.unwrap();
    assert_eq!(host.memory, Some(64 << 20));
    assert!(
        matches!(host.memory_swap, Some(s) if s == 64 << 20 || s == -1),
        "no swap: {:?}",
        host.memory_swap
    );
    assert_eq!(host.nano_cpus, Some(500_000_000));
    assert_eq!(host.pids_limit, Some(32));
    assert_eq!(host.privileged, Some(false));
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    let caps = host.cap_add.unwrap();
    for dangerous in ["SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "MKNOD", "SYS_MODULE", "SETFCAP"] {
        assert!(!caps.iter().any(|c| c.trim_start_matches("CAP_") == dangerous), "{dangerous}");
    }
    // Default seccomp: nobody has said otherwise.
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(host.ipc_mode.as_deref(), Some("private"));
    assert!(matches!(host.pid_mode.as_deref(), None | Some("")));
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
    assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));

    let mounts = found.mounts.unwrap();
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    assert!(mounts.iter().all(|m| m.rw == Some(false)), "{mounts:?}");
    let mut targets: Vec<_> = mounts.into_iter().filter_map(|m| m.destination).collect();
    targets.sort();
    assert_eq!(targets, ["/run/hotbed", "/run/hotbed/self"]);
    world.end().await;
}

#[tokio::test]
async fn more_cpus_than_there_are_is_no_limit() {
    let world = World::new().await;
    let base = world.base().await;
    let mut wanted = world.wanted(&base);
    wanted.resources.cpu_millis = 4_000_000;
    world.backend.start(&wanted).await.unwrap();
    assert!(matches!(world.inspect(wanted.id).await.host_config.unwrap().nano_cpus, None | Some(0)));
    world.end().await;
}

#[tokio::test]
async fn an_unknown_runtime_is_an_error_that_names_it() {
    let world = World::new().await;
    let base = world.base().await;
    let other = world.another(|c| c.runtime = Some("no-such-runtime".into()));
    let error = other.start(&world.wanted(&base)).await.unwrap_err();
    assert!(error.chain().contains("no-such-runtime"), "{}", error.chain());
    assert!(!error.kind().is_retryable(), "{error:?}");
    world.end().await;
}
