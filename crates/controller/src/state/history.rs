//! What services ran before: the templates of the revisions that are kept, and which older ones are worth keeping.
//!
//! The newest revisions are kept whole, for whatever they changed. Of older ones those are kept in which a template
//! changed: however often a service is scaled, it can go back to what it ran.

use std::collections::BTreeMap;
use std::fs;
use std::time::UNIX_EPOCH;

use ringmaster_core::api::TemplateRevision;
use ringmaster_core::spec::Template;
use ringmaster_core::{Generation, ServiceName, Timestamp};

use super::{REVISIONS_KEPT, StateDir, StateError, StoredRevision, read_whole};

/// The templates of one service.
#[derive(Debug, Default)]
pub struct History {
    /// Oldest first, each template once, where it was last taken up.
    pub revisions: Vec<TemplateRevision>,
    /// Revisions that should be there and cannot be read, newest last, with the reason.
    pub lost: Vec<(Generation, String)>,
}

impl History {
    /// The last template before the one in force that was ready, or of which that is not known.
    pub fn previous(&self) -> Option<&TemplateRevision> {
        self.revisions.iter().rev().skip(1).find(|earlier| earlier.ready != Some(false))
    }
}

impl StateDir {
    /// What a service has run since it was made. Deleted and made again it is another one, although of the same name.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn history(&self, name: &ServiceName, current: Generation) -> Result<History, StateError> {
        let mut generations = self.generations()?;
        generations.retain(|generation| *generation <= current);
        generations.extend(newest(current));
        generations.sort_unstable();
        generations.dedup();
        let mut history = History::default();
        let mut life = None;
        for generation in generations {
            let revision = match self.revision(generation) {
                Ok(revision) => revision,
                Err(why) => {
                    history.lost.push((generation, why));
                    continue;
                }
            };
            let Some(service) = revision.services.get(name).filter(|service| !service.deleting) else {
                continue;
            };
            // The seed of its ring is drawn when a service is made, and stays.
            let seed = service.ring.split('-').next().map(ToOwned::to_owned);
            if life != seed {
                history.revisions.clear();
                life = seed;
            }
            self.note(&mut history.revisions, generation, &service.spec.template);
        }
        if let Some(last) = history.revisions.last_mut() {
            last.current = true;
        }
        Ok(history)
    }

    /// The template that a service had in a revision. The error is a clause about the revision.
    pub(crate) fn template(&self, name: &ServiceName, generation: Generation) -> Result<Template, String> {
        let mut revision = self.revision(generation)?;
        match revision.services.remove(name).filter(|service| !service.deleting) {
            Some(service) => Ok(service.spec.template),
            None => Err(format!("has no service `{name}`")),
        }
    }

    /// The revisions of a list, ascending, that may go: no service took up a template in them, or too many have
    /// since. One that cannot be read goes too.
    pub(super) fn without_new_templates(&self, generations: Vec<Generation>) -> Vec<Generation> {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        // Before the first there was nothing.
        let mut before = Some(BTreeMap::new());
        for generation in generations {
            let templates = self.revision(generation).ok().as_ref().map(templates);
            if templates.is_none() || templates == before {
                gone.push(generation);
                continue;
            }
            kept.push(generation);
            before = templates;
        }
        gone.extend(kept.drain(..kept.len().saturating_sub(REVISIONS_KEPT)));
        gone
    }

    fn revision(&self, generation: Generation) -> Result<StoredRevision, String> {
        match read_whole(&self.revision_path(generation)) {
            Ok(Some(revision)) => Ok(revision),
            Ok(None) => Err("is not there".to_owned()),
            Err(why) => Err(why),
        }
    }

    fn note(&self, revisions: &mut Vec<TemplateRevision>, generation: Generation, template: &Template) {
        if revisions.last().is_some_and(|last| last.template == *template) {
            return;
        }
        revisions.retain(|earlier| earlier.template != *template);
        revisions.push(TemplateRevision {
            revision: generation,
            at: self.written_at(generation),
            template: template.clone(),
            runs: template.runs(),
            current: false,
            ready: None,
        });
    }

    /// The file never changes, so that its time is that of the change.
    fn written_at(&self, generation: Generation) -> Option<Timestamp> {
        let modified = fs::metadata(self.revision_path(generation)).ok()?.modified().ok()?;
        Some(Timestamp(modified.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64))
    }
}

/// The revisions that are kept whatever they changed: one that is missing was lost.
fn newest(current: Generation) -> impl Iterator<Item = Generation> {
    let first = current.0.saturating_sub(REVISIONS_KEPT as u64 - 1).max(1);
    (first..=current.0).map(Generation)
}

/// What each service runs, and in which life: what going back needs.
fn templates(revision: &StoredRevision) -> BTreeMap<ServiceName, (String, Template)> {
    let of = |(name, service): (&ServiceName, &super::StoredService)| {
        let seed = service.ring.split('-').next().unwrap_or_default().to_owned();
        (name.clone(), (seed, service.spec.template.clone()))
    };
    revision.services.iter().filter(|(_, service)| !service.deleting).map(of).collect()
}

#[cfg(test)]
mod tests {
    use ringmaster_core::spec::ServiceSpec;

    use super::*;
    use crate::state::StoredService;

    /// Generations in which `web` runs these images; none is one without the service. The letter before the colon is
    /// its life.
    fn kept(images: &[Option<&str>]) -> (tempfile::TempDir, StateDir, ServiceName) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let web = ServiceName::new("web").unwrap();
        for (image, generation) in images.iter().zip(1..) {
            let service = image.map(|image| {
                let spec: ServiceSpec =
                    serde_json::from_value(serde_json::json!({ "template": { "image": image } })).unwrap();
                let generation = Generation(generation);
                let ring = format!("{}-{generation}", image.split(':').next().unwrap());
                (
                    web.clone(),
                    StoredService {
                        spec,
                        generation,
                        members: Vec::new(),
                        ring,
                        rollout: None,
                        deleting: false,
                    },
                )
            });
            let services = service.into_iter().collect();
            let generation = Generation(generation);
            let revision = StoredRevision { generation, services, ..StoredRevision::default() };
            state.save(&revision, &BTreeMap::new()).unwrap();
        }
        (dir, state, web)
    }

    fn listed(history: &History) -> Vec<(u64, &str, bool)> {
        history.revisions.iter().map(|r| (r.revision.0, r.runs.as_str(), r.current)).collect()
    }

    #[test]
    fn each_template_is_listed_once_where_it_was_last_taken_up() {
        let (_dir, state, web) =
            kept(&[Some("a:1"), Some("a:1"), Some("a:2"), Some("a:1"), Some("a:1"), Some("a:3")]);
        let history = state.history(&web, Generation(6)).unwrap();
        assert_eq!(listed(&history), [(3, "a:2", false), (4, "a:1", false), (6, "a:3", true)]);
        assert!(history.lost.is_empty() && history.revisions[0].at.is_some());
    }

    #[test]
    fn a_service_made_again_has_no_history() {
        let (_dir, state, web) = kept(&[Some("a:1"), Some("a:2"), None, Some("b:3")]);
        assert_eq!(listed(&state.history(&web, Generation(4)).unwrap()), [(4, "b:3", true)]);
    }

    #[test]
    fn scaling_a_hundred_times_loses_no_template() {
        let mut images = vec![Some("a:1"); 10];
        images.extend([Some("a:2"); 100]);
        let (dir, state, web) = kept(&images);
        let history = state.history(&web, Generation(110)).unwrap();
        assert_eq!(listed(&history), [(1, "a:1", false), (11, "a:2", true)]);
        assert!(history.lost.is_empty(), "{:?}", history.lost);
        assert_eq!(fs::read_dir(dir.path().join("revisions")).unwrap().count(), 22);
    }

    #[test]
    fn what_is_kept_is_bounded_however_many_templates_there_were() {
        let names: Vec<String> = (0..100).map(|n| format!("a:{n}")).collect();
        let images: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let (dir, state, web) = kept(&images);
        assert_eq!(fs::read_dir(dir.path().join("revisions")).unwrap().count(), 2 * REVISIONS_KEPT);
        let history = state.history(&web, Generation(100)).unwrap();
        assert_eq!((history.revisions.len(), history.revisions[0].revision), (40, Generation(61)));
    }

    #[test]
    fn a_lost_revision_is_told() {
        let (dir, state, web) = kept(&[Some("a:1"), Some("a:2"), Some("a:3")]);
        fs::remove_file(dir.path().join("revisions/rev-2")).unwrap();
        fs::write(dir.path().join("revisions/rev-1"), "x").unwrap();
        let history = state.history(&web, Generation(3)).unwrap();
        assert_eq!(listed(&history), [(3, "a:3", true)]);
        let lost: Vec<_> =
            history.lost.iter().map(|(generation, why)| (generation.0, why.as_str())).collect();
        assert_eq!(lost, [(1, "is truncated"), (2, "is not there")]);
    }
}
