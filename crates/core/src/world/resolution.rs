//! What each service's template resolves to, when to ask again, and what stands while nobody answers.

use std::collections::BTreeMap;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::failure::retry_delay;
use super::listing::RESYNC_PERIOD;
use crate::Timestamp;
use crate::desired::Desired;
use crate::ids::{Revision, ServiceName};
use crate::spec::{PullPolicy, Template};

/// How often a tag is asked what it names now.
const RESOLVE_PERIOD: Duration = RESYNC_PERIOD;

/// The resolutions of all services.
#[derive(Debug, Clone, Default)]
pub struct Resolutions {
    services: BTreeMap<ServiceName, Resolution>,
}

#[derive(Debug, Clone)]
struct Resolution {
    template: Template,
    restarted_at: Option<Timestamp>,
    running: bool,
    failures: u32,
    again_at: Option<Timestamp>,
    /// The revision and the content that it stands for.
    resolved: Option<(Revision, String)>,
}

/// What a resolution has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// What was known, or nothing that matters: the template has changed meanwhile.
    Nothing,
    /// The first answer for this template.
    First(Revision),
    /// The same template stands for something else now: a tag was rebuilt.
    Rebuilt(Revision),
    /// No answer; what was resolved before still stands.
    Kept(Revision),
    /// No answer, and there has never been one.
    Unknown,
}

impl Resolutions {
    /// The templates that are to be resolved now, because they are new, changed, or due: a tag may have been rebuilt.
    /// They count as under way. The flag tells whether what was known of the service no longer holds.
    pub(super) fn begin_due(
        &mut self,
        desired: &Desired,
        now: Timestamp,
    ) -> Vec<(ServiceName, Template, bool)> {
        self.services.retain(|name, _| desired.services.get(name).is_some_and(|service| !service.deleting));
        let mut due = Vec::new();
        for (name, service) in desired.services.iter().filter(|(_, service)| !service.deleting) {
            let template = &service.spec.template;
            let restarted_at = service.rollout.restarted_at;
            match self.services.get_mut(name) {
                Some(known) if known.template == *template && known.restarted_at == restarted_at => {
                    if known.due_at().is_none_or(|at| at > now) {
                        continue;
                    }
                    known.running = true;
                    due.push((name.clone(), template.clone(), false));
                }
                _ => {
                    let fresh = Resolution {
                        template: template.clone(),
                        restarted_at,
                        running: true,
                        failures: 0,
                        again_at: None,
                        resolved: None,
                    };
                    self.services.insert(name.clone(), fresh);
                    due.push((name.clone(), template.clone(), true));
                }
            }
        }
        due
    }

    /// The engine has answered for a template, with the identity of its content or not at all.
    pub(super) fn end(
        &mut self,
        service: &ServiceName,
        template: &Template,
        content: Option<String>,
        now: Timestamp,
    ) -> Resolved {
        let Some(known) = self.services.get_mut(service).filter(|known| known.template == *template) else {
            return Resolved::Nothing; // The template has changed meanwhile; its own resolution is under way.
        };
        known.running = false;
        let Some(content_id) = content else {
            known.failures += 1;
            known.again_at = Some(now.after(retry_delay(known.failures)));
            // What was resolved before still stands: an engine in trouble, or a tag that was removed, must not take
            // away what runs or keep it from being healed.
            return known.resolved.as_ref().map_or(Resolved::Unknown, |(r, _)| Resolved::Kept(r.clone()));
        };
        let revision = revision_of(template, &content_id, known.restarted_at);
        known.failures = 0;
        // `always` means a pull for each new revision, not one every few seconds.
        let again = template.pull_policy != PullPolicy::Always;
        known.again_at = again.then(|| now.after(RESOLVE_PERIOD));
        match known.resolved.replace((revision.clone(), content_id)) {
            None => Resolved::First(revision),
            Some((before, _)) if before != revision => Resolved::Rebuilt(revision),
            Some(_) => Resolved::Nothing,
        }
    }

    /// A creation has shown that what was resolved is not to be had: ask again at once.
    pub(super) fn doubt(&mut self, service: &ServiceName, now: Timestamp) {
        if let Some(known) = self.services.get_mut(service) {
            known.again_at = Some(now);
        }
    }

    /// When the next is to be asked again; none if never, or while all are under way.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.services.values().filter_map(Resolution::due_at).min()
    }

    /// The content that a revision of a service stands for, if it is the one that was resolved last.
    pub fn content_id(&self, service: &ServiceName, revision: &Revision) -> Option<&str> {
        let (resolved, content_id) = self.services.get(service)?.resolved.as_ref()?;
        (resolved == revision).then_some(content_id.as_str())
    }
}

impl Resolution {
    fn due_at(&self) -> Option<Timestamp> {
        self.again_at.filter(|_| !self.running)
    }
}

/// What runs, as one short hash: the template, the content that it resolved to, and the restart that asked for it.
fn revision_of(template: &Template, content_id: &str, restarted_at: Option<Timestamp>) -> Revision {
    // When to pull is not what to run.
    let template = Template { pull_policy: PullPolicy::default(), ..template.clone() };
    let text = serde_json::to_string(&template).expect("a template has only string keys");
    let stamp = restarted_at.map_or(String::new(), |at| format!("\nrestarted at {at}"));
    let hash = xxh3_64(format!("{text}\n{content_id}{stamp}").as_bytes());
    Revision(format!("{hash:016x}")[..10].to_owned())
}
