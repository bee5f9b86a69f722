//! What is particular to processes: records, adoption across daemons, groups, logs, the environment.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::Command;
use std::slice::from_ref;
use std::time::Duration;

use ringmaster_core::observed::{ExitInfo, ReplicaState, RuntimeReplica};
use ringmaster_core::quantity::Memory;
use ringmaster_process::{ProcessConfig, ProcessRuntime};
use ringmaster_runtime::{ErrorKind, Runtime, Signal};
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

use common::{Bench, replica_binary, template};

/// Where the helper below finds its folder.
const HELPER_FOLDER: &str = "PROCESS_TEST_FOLDER";

fn record_path(bench: &Bench, replica: &RuntimeReplica) -> std::path::PathBuf {
    bench.config.dir.join(format!("{}.json", replica.name))
}

fn record(bench: &Bench, replica: &RuntimeReplica) -> Value {
    serde_json::from_slice(&fs::read(record_path(bench, replica)).unwrap()).unwrap()
}

fn pid(bench: &Bench, replica: &RuntimeReplica) -> Pid {
    let pid = record(bench, replica)["process"]["pid"].as_i64().unwrap();
    Pid::from_raw(pid as i32).unwrap()
}

/// Opens the folder again, as the next daemon would, after a change to the record.
async fn reopened_after(bench: Bench, replica: &RuntimeReplica, change: impl FnOnce(&mut Value)) -> Bench {
    let Bench { config, runtime, fixture, folder } = bench;
    drop(runtime);
    let path = config.dir.join(format!("{}.json", replica.name));
    let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut record);
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let runtime = ProcessRuntime::open(config.clone()).await.unwrap();
    Bench { config, runtime, fixture, folder }
}

/// The daemon that dies: not a test of its own, but run as a process by the next test.
#[tokio::test]
#[ignore = "a helper of a_replica_of_a_dead_daemon_is_adopted, which runs it"]
async fn a_daemon_that_dies() {
    let Ok(folder) = std::env::var(HELPER_FOLDER) else { return };
    let config = ProcessConfig { dir: folder.into(), daemon: replica_binary(), instance: "test".to_owned() };
    let runtime = ProcessRuntime::open(config).await.unwrap();
    let bench = Bench::open().await;
    bench.fixture.started(&runtime, 0).await;
}

#[tokio::test]
async fn a_replica_of_a_dead_daemon_is_adopted() {
    let bench = Bench::open().await;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_daemon_that_dies", "--exact", "--ignored"])
        .env(HELPER_FOLDER, &bench.config.dir)
        .env("RINGMASTER_TOKEN", "secret")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let runtime = ProcessRuntime::open(bench.config.clone()).await.unwrap();
    let replicas = runtime.list().await.unwrap();
    let [replica] = replicas.as_slice() else { panic!("{replicas:?}") };
    bench.fixture.answers(replica).await;
    let environment = fs::read(format!("/proc/{}/environ", pid(&bench, replica).as_raw_nonzero())).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    assert!(environment.contains("SERVER_ID=1\0") && environment.contains("HOSTNAME=web-0\0"));
    assert!(!environment.contains("RINGMASTER_TOKEN"), "a replica is not given the daemon's secrets");

    runtime.signal(&replica.id, Signal::Kill).await.unwrap();
    let exit = bench.fixture.exit(&runtime, &replica.id).await;
    assert_eq!(exit.code, None, "only its parent would be told");
    assert!(exit.message.unwrap().contains("earlier daemon"));
}

#[tokio::test]
async fn a_process_that_was_not_yet_written_down_is_found_by_its_marker() {
    let bench = Bench::open().await;
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    let bench = reopened_after(bench, &replica, |record| record["process"] = Value::Null).await;
    assert_eq!(bench.runtime.list().await.unwrap(), from_ref(&replica));
    bench.runtime.remove(&replica.id).await.unwrap();
}

#[tokio::test]
async fn a_pid_that_was_given_again_is_left_alone() {
    for change in [
        (|record: &mut Value| record["process"]["startTicks"] = 1.into()) as fn(&mut Value),
        |record: &mut Value| record["bootId"] = "another boot".into(),
    ] {
        let bench = Bench::open().await;
        let replica = bench.fixture.started(&bench.runtime, 0).await;
        let process = pid(&bench, &replica);
        let bench = reopened_after(bench, &replica, change).await;
        let exit = bench.fixture.exit(&bench.runtime, &replica.id).await;
        let message = Some("it ended while no daemon watched".to_owned());
        assert_eq!(exit, ExitInfo { message, ..ExitInfo::default() });
        let signal = bench.runtime.signal(&replica.id, Signal::Kill).await;
        assert_eq!(signal.unwrap_err().kind, ErrorKind::NotFound);
        bench.runtime.remove(&replica.id).await.unwrap();
        bench.fixture.answers(&replica).await;
        rustix::process::kill_process_group(process, rustix::process::Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn what_a_replica_started_ends_with_it_and_no_zombie_stays() {
    let bench = Bench::open().await;
    let family = template(&["sh", "-c", "sleep 1000 & echo child $!; wait"]);
    let request = bench.fixture.request(&bench.runtime, 0, &family).await;
    let replica = bench.runtime.create(&request).await.unwrap();
    let mut child = None;
    bench
        .fixture
        .until("the child is told", async || {
            let logs = bench.runtime.logs(&replica.id, 10).await.unwrap();
            child = logs.strip_prefix("child ").and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
            child.is_some()
        })
        .await;
    let parent = pid(&bench, &replica);
    bench.runtime.signal(&replica.id, Signal::Kill).await.unwrap();
    assert_eq!(bench.fixture.exit(&bench.runtime, &replica.id).await.code, Some(137));
    assert!(test_kill_process(parent).is_err(), "the parent has been reaped");
    let stat = format!("/proc/{}/stat", child.unwrap().as_raw_nonzero());
    bench
        .fixture
        .until("the child has ended", async || {
            fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
}

#[tokio::test]
async fn a_long_log_is_cut_and_keeps_its_end() {
    let bench = Bench::open().await;
    let mut chatty = template(&["sh", "-c", "seq 100000; echo last; exec sleep 1000"]);
    chatty.logs.max_size = Memory { bytes: 10_000 };
    chatty.logs.max_files = 2;
    let request = bench.fixture.request(&bench.runtime, 0, &chatty).await;
    let replica = bench.runtime.create(&request).await.unwrap();
    let last = async || bench.runtime.logs(&replica.id, 1).await.unwrap();
    bench.fixture.until("all is written", async || last().await == "last\n").await;
    bench.runtime.list().await.unwrap();
    let size = |extension: &str| {
        let path = bench.config.dir.join(format!("{}.{extension}", replica.name));
        fs::metadata(path).unwrap().len()
    };
    assert_eq!((size("log"), size("log.1")), (0, 10_000));
    let logs = bench.runtime.logs(&replica.id, 3).await.unwrap();
    assert_eq!(logs, "99999\n100000\nlast\n");
}

#[tokio::test]
async fn a_rebuilt_program_is_new_content_and_the_old_is_not_started() {
    let bench = Bench::open().await;
    let program = bench.folder.0.join("program");
    fs::copy(replica_binary(), &program).unwrap();
    let template = template(&[program.to_str().unwrap()]);
    let request = bench.fixture.request(&bench.runtime, 0, &template).await;
    fs::File::open(&program).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_ne!(bench.runtime.resolve(&template).await.unwrap(), request.content_id);
    assert_eq!(bench.runtime.create(&request).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_broken_record_is_put_aside() {
    let bench = Bench::open().await;
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    fs::write(bench.config.dir.join("web-1-0.json"), "{\"id\":").unwrap();
    let bench = reopened_after(bench, &replica, |_| {}).await;
    assert_eq!(bench.runtime.list().await.unwrap(), [replica]);
    assert!(bench.config.dir.join("web-1-0.broken").is_file());
}

#[tokio::test]
async fn members_get_ports_of_their_own() {
    let bench = Bench::open().await;
    let (one, two) =
        tokio::join!(bench.fixture.started(&bench.runtime, 0), bench.fixture.started(&bench.runtime, 1));
    assert_ne!(one.address, two.address);
    let removed = bench.runtime.stop(&one.id, Duration::from_secs(30)).await;
    removed.unwrap();
    assert!(matches!(
        bench.runtime.inspect(&two.id).await.unwrap().unwrap().replica.state,
        ReplicaState::Running
    ));
}
