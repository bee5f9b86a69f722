use ringmaster_core::Revision;
use ringmaster_core::api::{ApplyRequest, ManifestFile};

use super::*;
use crate::state::StateDir;
use crate::store::RollbackError;

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn open(dir: &std::path::Path) -> Store {
    let state = StateDir::open(dir).unwrap();
    let loaded = state.load().unwrap();
    Store::new(state, loaded).unwrap()
}

fn apply(store: &Store, image: &str, force: bool) -> Result<Generation, StoreError> {
    let text = format!(
        "apiVersion: ringmaster/v1\nkind: Service\nmetadata: {{ name: web }}\n\
         spec: {{ replicas: 2, template: {{ image: {image} }}, strategy: {{ canary: 50% }} }}\n"
    );
    let files = vec![ManifestFile { file: "test".to_owned(), text }];
    let request = ApplyRequest { files, force, ..ApplyRequest::default() };
    store.apply(&request, &|_, _, _| None).map(|response| response.generation)
}

fn image(store: &Store) -> String {
    store.desired().services[&web()].spec.template.image.clone().unwrap()
}

/// What the loop notes once every replica is of what is wanted now.
fn ready(store: &Store) -> Release {
    let desired = store.desired();
    let service = &desired.services[&web()];
    let release = Release {
        revision: Revision(format!("r-{}", service.spec.template.runs())),
        content_id: "content".to_owned(),
        template: service.spec.template.clone(),
        restarted_at: service.rollout.restarted_at,
        generation: service.rollout.since,
    };
    store.note_ready(&web(), &service.rollout, release.clone());
    release
}

fn failed(store: &Store) -> FailedRelease {
    let desired = store.desired();
    let service = &desired.services[&web()];
    FailedRelease {
        revision: None,
        template: service.spec.template.clone(),
        generation: service.rollout.since,
        at: Timestamp(5),
        why: "it failed".to_owned(),
        given_up_in: Generation(0),
        back_to: Generation(1),
    }
}

#[test]
fn two_rollouts_at_once_are_refused_unless_the_second_goes_back_or_is_insisted_upon() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&store, "a", false).unwrap();
    apply(&store, "b", false).expect("nothing serves yet that could be lost");
    ready(&store);
    apply(&store, "c", false).unwrap();
    let before = store.desired();
    let refused = apply(&store, "d", false).unwrap_err();
    assert!(matches!(refused, StoreError::Rollout(RolloutError::UnderWay(_))) && refused.is_passing());
    let restart = store.rollout(&web(), RolloutAction::Restart, Timestamp(1), None).unwrap_err();
    assert!(matches!(restart, StoreError::Rollout(RolloutError::UnderWay(_))));
    assert_eq!(store.desired(), before, "nothing was applied");
    apply(&store, "c", false).expect("the same is no second one");
    apply(&store, "d", true).unwrap();
    apply(&store, "b", false).expect("back to what is ready");
    assert_eq!(image(&store), "b");
}

#[test]
fn what_was_given_up_is_remembered_and_refused_over_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&store, "a", false).unwrap();
    let stable = ready(&store);
    store.save_ready().unwrap();
    apply(&store, "b", false).unwrap();
    let generation = store.give_up(&web(), failed(&store), &stable).unwrap().unwrap();
    drop(store);
    let store = open(dir.path());
    let rollout = store.desired().services[&web()].rollout.clone();
    assert_eq!((image(&store), store.stable(&web(), &rollout)), ("a".to_owned(), Some(stable.clone())));
    assert_eq!(rollout.failed.as_ref().unwrap().given_up_in, generation);
    let refused = apply(&store, "b", false).unwrap_err().to_string();
    assert!(refused.contains("(it failed)") && refused.contains("--force"), "{refused}");
    let never = store.rollback(&web(), Some(Generation(2))).unwrap_err();
    assert!(matches!(never, StoreError::Rollback(RollbackError::NeverReady { .. })), "{never}");
    assert_eq!(store.desired().generation, generation, "nothing was applied");
    apply(&store, "b", true).unwrap();
    assert_eq!(store.desired().services[&web()].rollout.failed, None);
}

#[test]
fn only_what_is_still_wanted_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&store, "a", false).unwrap();
    let stable = ready(&store);
    apply(&store, "b", false).unwrap();
    let late = failed(&store);
    apply(&store, "c", true).unwrap();
    assert_eq!(store.give_up(&web(), late, &stable).unwrap(), None);
    assert_eq!(image(&store), "c");
}

#[test]
fn a_restart_that_fails_goes_back_to_the_stamp_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&store, "a", false).unwrap();
    let stable = ready(&store);
    store.rollout(&web(), RolloutAction::Restart, Timestamp(7), None).unwrap();
    assert_eq!(store.desired().services[&web()].rollout.restarted_at, Some(Timestamp(7)));
    store.give_up(&web(), failed(&store), &stable).unwrap().unwrap();
    assert_eq!(store.desired().services[&web()].rollout.restarted_at, None);
    // So does somebody who changes their mind, and a second restart in the same millisecond is another one.
    store.rollout(&web(), RolloutAction::Restart, Timestamp(9), None).unwrap();
    store.rollback(&web(), None).unwrap();
    assert_eq!(store.desired().services[&web()].rollout.restarted_at, None);
    store.rollout(&web(), RolloutAction::Restart, Timestamp(9), None).unwrap();
    ready(&store);
    store.rollout(&web(), RolloutAction::Restart, Timestamp(9), None).unwrap();
    assert_eq!(store.desired().services[&web()].rollout.restarted_at, Some(Timestamp(10)));
}

#[test]
fn holding_and_promoting_are_refused_where_there_is_nothing_to_hold_or_promote() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&store, "a", false).unwrap();
    ready(&store);
    let rolling = |store: &Store| (image(store) == "b").then(|| Revision("r-b".to_owned()));
    let ask =
        |action| store.rollout(&web(), action, Timestamp(1), rolling(&store)).map(|done| done.generation);
    let refused = |action| ask(action).unwrap_err().to_string();
    assert!(refused(RolloutAction::Resume).contains("not paused"));
    assert!(refused(RolloutAction::Promote).contains("no canary"));
    ask(RolloutAction::Pause).unwrap();
    assert!(refused(RolloutAction::Pause).contains("paused already"));
    assert!(refused(RolloutAction::Restart).contains("are paused"));
    apply(&store, "b", false).unwrap();
    ask(RolloutAction::Promote).unwrap();
    assert!(refused(RolloutAction::Promote).contains("no canary"), "it is promoted already");
    ask(RolloutAction::Resume).unwrap();
    store.rollback(&web(), None).unwrap();
    let rollout = store.desired().services[&web()].rollout.clone();
    assert!(rollout.promoted.is_none() && !rollout.paused && image(&store) == "a", "{rollout:?}");
}

#[test]
fn what_ran_before_anything_was_noted_can_be_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&store, "a", false).unwrap();
    apply(&store, "b", false).unwrap();
    drop(store);
    // As an earlier version wrote it: without a word of rollouts.
    let path = dir.path().join("revisions/rev-2");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, json) = text.split_once('\n').unwrap();
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["services"]["web"].as_object_mut().unwrap().remove("rollout").unwrap();
    let json = serde_json::to_string(&value).unwrap();
    std::fs::write(&path, format!("ringmaster-state 1 {}\n{json}\n", crate::state::digest(&json))).unwrap();
    let store = open(dir.path());
    assert_eq!(store.history(&web()).unwrap().previous().unwrap().revision, Generation(1));
    store.rollback(&web(), None).unwrap();
    assert_eq!(image(&store), "a");
}
