//! Which releases of each service were ready as a whole: what a service may go back to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Release, Rollout};
use crate::ids::{Generation, ServiceName};

/// So many releases of a service are kept.
const RELEASES_KEPT: usize = 40;

/// The releases of one service that were ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyReleases {
    /// Since when they have been noted: a service that was deleted and made again is another one.
    pub noted_from: Generation,
    /// Each template once, by when it was ready last; the last one is the stable release.
    pub releases: Vec<Release>,
}

/// The releases of every service that were ready.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ready(pub BTreeMap<ServiceName, ReadyReleases>);

impl ReadyReleases {
    /// Adds a release that is ready now.
    pub fn note(&mut self, release: Release) {
        self.releases.retain(|earlier| earlier.template != release.template);
        self.releases.push(release);
        self.releases.drain(..self.releases.len().saturating_sub(RELEASES_KEPT));
    }
}

impl Ready {
    /// The releases of a service in its present life, by when they were ready last.
    pub fn of(&self, name: &ServiceName, rollout: &Rollout) -> &[Release] {
        let ready = self.0.get(name).filter(|ready| ready.noted_from == rollout.noted_from);
        ready.map_or(&[], |ready| &ready.releases)
    }

    /// The stable release of a service.
    pub fn stable(&self, name: &ServiceName, rollout: &Rollout) -> Option<&Release> {
        self.of(name, rollout).last()
    }

    /// Takes note that every replica of a service is of this release, and ready.
    pub fn note(&mut self, name: &ServiceName, rollout: &Rollout, release: Release) {
        let noted_from = rollout.noted_from;
        let fresh = || ReadyReleases { noted_from, releases: Vec::new() };
        let ready = self.0.entry(name.clone()).or_insert_with(fresh);
        if ready.noted_from != noted_from {
            *ready = fresh();
        }
        ready.note(release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;
    use crate::spec::Template;

    fn release(image: &str, generation: u64) -> Release {
        let template: Template = serde_json::from_value(serde_json::json!({ "image": image })).unwrap();
        let revision = Revision(format!("r{image}"));
        Release {
            revision,
            content_id: "c".to_owned(),
            template,
            restarted_at: None,
            generation: Generation(generation),
        }
    }

    #[test]
    fn each_template_is_kept_once_and_what_is_stable_is_never_dropped() {
        let mut ready = ReadyReleases { noted_from: Generation(1), releases: Vec::new() };
        for number in 0..100 {
            ready.note(release(&format!("x:{number}"), number));
            ready.note(release("x:first", number));
        }
        assert_eq!((ready.releases.len(), ready.releases.last().unwrap().generation.0), (RELEASES_KEPT, 99));
        assert_eq!(ready.releases.last().unwrap().template.image.as_deref(), Some("x:first"));
    }

    #[test]
    fn a_service_that_is_made_again_has_none() {
        let web = ServiceName::new("web").unwrap();
        let life = |from| Rollout { noted_from: Generation(from), ..Rollout::default() };
        let mut ready = Ready::default();
        ready.note(&web, &life(1), release("x:1", 1));
        assert!(ready.stable(&web, &life(1)).is_some());
        assert_eq!(ready.stable(&web, &life(7)), None);
        ready.note(&web, &life(7), release("x:2", 8));
        assert_eq!(ready.of(&web, &life(7)).len(), 1, "what its namesake ran is forgotten");
    }
}
