use ringmaster_core::snapshot::EjectReason;
use ringmaster_core::{Reason, ServiceName};

use super::*;

const OUT: Circuit = Circuit { reason: EjectReason::Slow, since: Timestamp(990_000), on_probation: false };

fn replica(name: &str, phase: Phase) -> Replica {
    Replica {
        name: name.to_owned(),
        phase,
        ejected: false,
        circuit: None,
        latency_ms: Some(0.617),
        requests_per_second: 66.71,
        in_flight: 2,
        share: Some(0.3331),
        expected: Some(1.0 / 3.0),
        ejections: 0,
        restarts: 0,
    }
}

fn event(age_ms: u64, severity: Severity, reason: Reason, message: &str) -> Event {
    let at = Timestamp(1_000_000 - age_ms);
    let service = ServiceName::new("web").ok();
    Event {
        sequence: 1,
        at,
        first_at: at,
        count: if severity == Severity::Warning { 2 } else { 1 },
        severity,
        service,
        object: "web-1".to_owned(),
        reason,
        message: message.to_owned(),
    }
}

fn view() -> View {
    let traffic = Traffic {
        requests_per_second: 200.13,
        p50_ms: Some(0.62),
        p99_ms: Some(14.2),
        failed_per_second: 0.0,
        failed: 3,
    };
    let web = Service {
        name: "web".to_owned(),
        ready: 2,
        desired: 3,
        note: Some("CrashLoopBackOff: web-2: failed 3 times in a row, last: exit code 1".to_owned()),
        traffic: traffic.clone(),
        replicas: vec![
            replica("web-0", Phase::Ready),
            Replica {
                ejected: true,
                circuit: Some(OUT),
                latency_ms: Some(1_234.5),
                ejections: 4,
                ..replica("web-1", Phase::Ready)
            },
            Replica {
                circuit: Some(Circuit { on_probation: true, ..OUT }),
                ejections: 1,
                ..replica("web-3", Phase::Ready)
            },
            Replica {
                requests_per_second: 0.0,
                latency_ms: None,
                share: None,
                restarts: 12,
                ..replica("web-2", Phase::CrashLoopBackOff)
            },
        ],
    };
    View {
        daemon: "ringmaster 0.1.0, docker, instance default".to_owned(),
        now: Timestamp(1_000_000),
        total: traffic,
        services: vec![web],
        events: vec![
            event(2_000, Severity::Warning, Reason::Failed, "web-1-0: exit code 137,\nas it seems"),
            event(200_000, Severity::Normal, Reason::Ready, "web-1-0 gets traffic"),
        ],
        ..View::default()
    }
}

#[test]
fn a_screen_says_all_of_it_in_eighty_columns() {
    let expected = "\
ringmaster 0.1.0, docker, instance default
2 of 3 ready   200/s   p50 0.6 ms   p99 14 ms   failed 0.0/s, 3 in all

web   2 of 3 ready   200/s   p50 0.6 ms   p99 14 ms   failed 0.0/s, 3 in all   …
  REPLICA       STATE             REQ/S REPLY FLIGHT  SHARE EXPECT EJECT RESTART
  web-0         Ready              66.7 0.6ms      2  33.3%  33.3%     0       0
  web-1         Ready, ejected     66.7  1.2s      2  33.3%  33.3%     4       0
  web-3         Ready, probation   66.7 0.6ms      2  33.3%  33.3%     1       0
  web-2         CrashLoopBackOff    0.0     -      2      -  33.3%     0      12

    2s ! web-1 Failed (x2): web-1-0: exit code 137, as it seems
 3m20s   web-1 Ready: web-1-0 gets traffic";
    let lines = render(&view(), Size::PAPER);
    assert_eq!(lines.join("\n"), expected);
    assert!(lines.iter().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_daemon_that_is_away_is_said_above_its_last_figures() {
    let away = Some("no daemon answers at http://127.0.0.1:1 (Connection refused)".to_owned());
    let lines = render(&View { away, ..view() }, Size { width: 120, height: None });
    let told = "! these are the last figures: no daemon answers at http://127.0.0.1:1 (Connection refused)";
    assert_eq!(lines[2], told);
    assert!(lines.iter().any(|line| line.starts_with("  web-0")));
}

#[test]
fn a_low_screen_shows_who_is_in_trouble_first() {
    let mut view = view();
    let ready = (0..1_000).map(|n| replica(&format!("web-{n}"), Phase::Ready));
    view.services[0].replicas = ready.chain([replica("web-x", Phase::NotReady)]).collect();
    for height in [1, 8, 12, 24] {
        let lines = render(&view, Size { width: 80, height: Some(height) });
        assert!(lines.len() <= height, "{height}: {}", lines.len());
    }
    let lines = render(&view, Size { width: 80, height: Some(24) });
    assert!(lines[5].starts_with("  web-x         NotReady"), "{}", lines[5]);
    assert!(lines.contains(&"  and 986 more".to_owned()), "{lines:#?}");
}

#[test]
fn an_empty_daemon_says_what_to_do() {
    let lines = render(&View::default(), Size::PAPER);
    assert_eq!(lines[3], "no services: ringmaster apply -f manifests/replicas.yaml");
}
