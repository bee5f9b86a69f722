//! Claims about commands beside a replica, and about how it ends.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringmaster_core::observed::ReplicaState;
use ringmaster_core::spec::{Exec, Lifecycle, PreStop, StopSignal};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Fixture, kind, listed, request_head};
use crate::{ErrorKind, Runtime, Signal, Wake};

/// A command sees the replica as its process does; its exit code and its output are told. One that has ended takes none.
pub async fn a_command_runs_beside_the_replica(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let run = async |command: &[String]| runtime.exec(&replica.id, command, fixture.deadline).await;
    let asked = run(&fixture.asking("/heartbeat")).await.expect("it runs");
    assert_eq!(asked.code, Some(0), "{}", asked.output);
    let refused = run(&fixture.asking("/nothing-here")).await.expect("it runs");
    assert!(refused.code == Some(1) && refused.output.contains("404"), "{refused:?}");
    let (slow, quick) = (fixture.asking("/slow?ms=300"), fixture.asking("/heartbeat"));
    let (slow, quick) = tokio::join!(run(&slow), run(&quick));
    let codes = [slow, quick].map(|outcome| outcome.expect("it runs").code);
    assert_eq!(codes, [Some(0); 2], "two may run at the same time");
    let failed = run(&fixture.fails).await.expect("it runs");
    assert!(failed.code == Some(2) && failed.output.contains("unexpected argument"), "{failed:?}");
    // Whether that is an error or an exit code is the engine's choice; that it is no success is not.
    match run(&["/no-such-program".to_owned()]).await {
        Ok(outcome) => assert!(outcome.code.is_some_and(|code| code != 0), "{outcome:?}"),
        Err(error) => assert_eq!(error.kind, ErrorKind::Invalid, "{error}"),
    }
    assert_eq!(listed(runtime, &replica.id).await, Some(replica.clone()), "commands are no replicas");
    runtime.stop(&replica.id, fixture.deadline).await.expect("it stops");
    assert_eq!(kind(run(&fixture.fails).await), Some(ErrorKind::NotFound), "an ended one runs nothing");
}

/// A command that takes longer than its limit is not waited for, and does not keep later ones away for ever.
pub async fn a_command_that_takes_too_long_is_given_up(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let (slow, quick) = (fixture.asking("/slow?ms=2000"), fixture.asking("/heartbeat"));
    let start = Instant::now();
    let given_up = runtime.exec(&replica.id, &slow, Duration::from_millis(300)).await.expect("it runs");
    assert_eq!(given_up.code, None);
    assert!(start.elapsed() < Duration::from_millis(1_900), "waited for {:?}", start.elapsed());
    fixture
        .until("another runs", async || {
            let outcome = runtime.exec(&replica.id, &quick, fixture.deadline).await.expect("it is tried");
            outcome.code == Some(0)
        })
        .await;
}

/// What runs before the stop is told as it was given, and the stop signal is the one that was asked for.
pub async fn how_it_is_to_end_is_kept(runtime: &dyn Runtime, fixture: &Fixture) {
    let plain = fixture.started(runtime, 1).await;
    let pre_stop = async |id| {
        let found = runtime.inspect(id).await.expect("the question is answered");
        found.map(|found| found.pre_stop.expect("what was written can be read"))
    };
    assert_eq!(pre_stop(&plain.id).await, Some(None));
    let hook = PreStop::Exec(Exec { command: vec!["say \"bye\"".to_owned()] });
    let mut template = fixture.runs.clone();
    template.lifecycle = Lifecycle { pre_stop: Some(hook.clone()), stop_signal: Some(StopSignal::Usr1) };
    let request = fixture.request(runtime, 0, &template).await;
    let replica = runtime.create(&request).await.expect("it starts");
    fixture.answers(&replica).await;
    assert_eq!(pre_stop(&replica.id).await, Some(Some(hook)));
    // The demo replica ends with 0 after SIGTERM; this signal ends it at once, or not at all where it is process 1.
    runtime.stop(&replica.id, Duration::from_secs(1)).await.expect("it stops");
    let code = fixture.exit(runtime, &replica.id).await.code;
    assert!(matches!(code, Some(137 | 138)), "{code:?}");
    runtime.remove(&replica.id).await.expect("it is removed");
    assert_eq!(pre_stop(&replica.id).await, None);
}

/// Where a runtime sees who sends signals, it says which replica is being stopped while that still runs.
pub async fn who_is_being_stopped_is_told_before_the_end(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let mut events = runtime.events();
    assert_eq!(fixture.within("the stream", events.next()).await, Some(Wake::Reconnected));
    // A request in flight keeps it from ending at once.
    let mut stream = TcpStream::connect(replica.address.expect("it runs")).await.expect("it accepts");
    stream.write_all(request_head("/slow?ms=3000").as_bytes()).await.expect("it reads");
    fixture.answers(&replica).await;
    runtime.signal(&replica.id, Signal::Stop).await.expect("it runs");
    runtime.signal(&replica.id, Signal::Cont).await.expect("it runs");
    runtime.signal(&replica.id, Signal::Term).await.expect("it runs");
    let told = async {
        loop {
            match events.next().await {
                Some(Wake::Stopping(id)) => return Some((id, listed(runtime, &replica.id).await)),
                Some(Wake::Changed) => {
                    let found = listed(runtime, &replica.id).await.expect("it is listed");
                    if matches!(found.state, ReplicaState::Exited(_)) {
                        return None;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    match fixture.within("its end is told", told).await {
        Some((id, listed)) => {
            assert_eq!((id, listed.map(|found| found.state)), (replica.id, Some(ReplicaState::Running)));
            assert!(fixture.sees_signals);
        }
        None => assert!(!fixture.sees_signals, "it was not told"),
    }
}
