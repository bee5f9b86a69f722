//! `serve --watch`: edits apply by themselves, and no state of the file takes anything away by accident.

use crate::common::{Daemon, On, Setup, shared};

#[tokio::test(flavor = "multi_thread")]
async fn edits_apply_and_damage_changes_nothing() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let file = folder.path().join("web.yaml");
    let yaml = |replicas: u32| {
        crate::common::service_yaml("web", replicas, "process: { command: [ringmaster, replica] }", "")
    };
    std::fs::write(&file, yaml(1)).unwrap();
    let daemon = Daemon::with(setup.with(&["--watch", "--manifest", file.to_str().unwrap()])).await;
    daemon.until("web", "ready", |status| status.ready == 1).await;
    let generation = || async { daemon.client.overview().await.unwrap().generation };

    // Written in place, then renamed over twice, as editors do: the watch survives each.
    std::fs::write(&file, yaml(2)).unwrap();
    daemon.until("web", "as edited", |status| status.ready == 2).await;
    for replicas in [3, 1] {
        let temporary = folder.path().join("web.yaml.swp");
        std::fs::write(&temporary, yaml(replicas)).unwrap();
        std::fs::rename(&temporary, &file).unwrap();
        daemon
            .until("web", "as renamed over", |status| status.is_converged() && status.ready == replicas)
            .await;
    }

    let before = generation().await;
    let whole = yaml(3);
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    daemon.event("ManifestRefused", "web.yaml").await;
    std::fs::write(&file, "").unwrap();
    daemon.event("ManifestRefused", "no documents").await;
    std::fs::remove_file(&file).unwrap();
    daemon.event("ManifestUnreadable", "web.yaml").await;
    std::fs::write(&file, yaml(3).replace("replicas", "replicsa")).unwrap();
    daemon.event("ManifestRefused", "replicsa").await;
    assert_eq!((generation().await, daemon.status("web").await.unwrap().ready), (before, 1));
    std::fs::write(&file, yaml(2)).unwrap();
    daemon.until("web", "mended", |status| status.is_converged() && status.ready == 2).await;
}
