//! Rollouts: how one release of a service takes the place of another, and when it is given up.
//!
//! A release is what replicas run: a template, the content that it resolved to, and a stamp that a restart changes. The
//! *stable* release is the last one of which every replica was ready: what fails meanwhile is healed with it, and a
//! rollout that fails goes back to it. [`turns`] says which places may change now, [`stage`] how far it has come,
//! [`failure`] whether it is over, [`judge`] which of all are; [`Ready`] is what may be gone back to.
//!
//! Deliberately absent: actions (see [`crate::plan`]), and memory: what was ready arrives as a value.

mod decide;
mod ready;
mod turns;
mod verdict;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::{Generation, Revision};
use crate::spec::Template;

pub use decide::{Judged, TemplateRefused, judge};
pub use ready::{Ready, ReadyReleases};
pub use turns::{Fill, PlaceView, Progress, Rolling, Turn, turns};
pub use verdict::{FAILURES_MAX, Stage, failure, stage};

/// What replicas run, as it was resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Its short hash.
    pub revision: Revision,
    /// The content that the template resolved to: an image's id.
    pub content_id: String,
    /// The template.
    pub template: Template,
    /// The stamp of the restart that made it, if one did.
    pub restarted_at: Option<Timestamp>,
    /// The generation of the desired state since which it was wanted.
    pub generation: Generation,
}

/// What was decided about a service's rollouts, by people or because one failed. Part of the desired state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The generation since which the template in force is wanted.
    #[serde(default)]
    pub since: Generation,
    /// Whether releases before this generation were ready is not known: they may be gone back to.
    #[serde(default)]
    pub noted_from: Generation,
    /// When the replicas were last asked to be replaced by others of the same template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Timestamp>,
    /// No further place is touched until it is resumed.
    #[serde(default)]
    pub paused: bool,
    /// The revision whose canary was good: the others follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Revision>,
    /// The last release that failed, until another is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedRelease>,
    /// The service was deleted by force: its replicas end without a word from the data plane.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced_out: bool,
}

/// A release that was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedRelease {
    /// Its short hash, if its template could be resolved.
    pub revision: Option<Revision>,
    /// Its template.
    pub template: Template,
    /// The generation since which it was wanted.
    pub generation: Generation,
    /// When it was given up.
    pub at: Timestamp,
    /// Why, for people.
    pub why: String,
    /// The generation that gave it up.
    pub given_up_in: Generation,
    /// The generation since which the release was wanted that the service went back to.
    pub back_to: Generation,
}

impl Rollout {
    /// Takes up another template, or the same again, at `generation`: what was decided about the one before is over.
    pub fn begin(&mut self, generation: Generation) {
        self.since = generation;
        self.promoted = None;
        self.failed = None;
    }

    /// What a template that resolves to `revision` stands for: the stable release if just that content has failed.
    pub fn in_force(&self, revision: Revision, stable: Option<&Release>) -> Revision {
        let failed = self.failed.as_ref().and_then(|failed| failed.revision.as_ref());
        match stable {
            Some(stable) if failed == Some(&revision) => stable.revision.clone(),
            _ => revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_has_failed_stands_for_what_was_stable_until_another_release_is_asked_for() {
        let template: Template = serde_json::from_value(serde_json::json!({ "image": "x:dev" })).unwrap();
        let revision = |text: &str| Revision(text.to_owned());
        let stable = Release {
            revision: revision("good"),
            content_id: "c".to_owned(),
            template: template.clone(),
            restarted_at: None,
            generation: Generation(1),
        };
        let failed = FailedRelease {
            revision: Some(revision("bad")),
            template,
            generation: Generation(1),
            at: Timestamp(0),
            why: "x".to_owned(),
            given_up_in: Generation(2),
            back_to: Generation(1),
        };
        let mut rollout =
            Rollout { failed: Some(failed), promoted: Some(revision("bad")), ..Rollout::default() };
        assert_eq!(rollout.in_force(revision("bad"), Some(&stable)), revision("good"));
        assert_eq!(rollout.in_force(revision("bad"), None), revision("bad"));
        assert_eq!(rollout.in_force(revision("better"), Some(&stable)), revision("better"));
        rollout.begin(Generation(3));
        assert_eq!(rollout.in_force(revision("bad"), Some(&stable)), revision("bad"));
        assert_eq!(rollout.promoted, None);
    }
}
