//! What is to be done for one service. Pure: what Swarm has and what providers have goes in, one step comes out.
//!
//! All that must outlive a leader is in the service's labels, so that each step follows from what Swarm says, whoever takes
//! it: first the goal is written, without touching a task; then the versions become the goal, and Swarm replaces the tasks.
//! Its rollback brings back the labels of before: versions and goal differ, and that is what was refused, which is written
//! down once the rollback has ended.

use crate::{
    docker::{Service, UpdateState},
    volume::{
        Versions,
        service::{NEXT, REFUSED, VERSIONS},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// What Swarm is to change of a service's labels.
pub type Relabel = BTreeMap<String, Option<String>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its tasks have the newest versions, or will have.
    Current,
    /// Swarm is at work on it.
    Busy { back: bool },
    /// Swarm has stopped in the middle of a rotation, and somebody must look.
    Paused,
    /// Swarm has stopped in the middle of another update, with which a rotation would go on: it waits.
    Foreign,
    /// Swarm has rolled these back, and that is to be written down: the next update of anybody's makes Swarm forget it.
    Refuse { versions: Versions, labels: Relabel },
    /// Swarm has rolled these back.
    Refused(Versions),
    /// The goal is written down; no task is replaced.
    Announce { from: Versions, to: Versions, labels: Relabel },
    /// The goal holds from now on, and the tasks are replaced.
    Rotate { to: Versions, labels: Relabel },
}

/// `ids` are the secrets that the service follows, `newest` what is known of them, `base` what its tasks got as long as no
/// label says so.
pub fn plan(service: &Service, ids: &BTreeSet<String>, newest: &Versions, base: &Versions) -> Verdict {
    if service.is_job {
        return Verdict::Current;
    }
    match service.update {
        Some(UpdateState::Updating) => return Verdict::Busy { back: false },
        Some(UpdateState::RollbackStarted) => return Verdict::Busy { back: true },
        _ => {}
    }
    let [on, next, refused] = [VERSIONS, NEXT, REFUSED].map(|name| Versions::of(&service.labels, name));
    let (mut from, mut to, mut no) = (Versions::default(), Versions::default(), Versions::default());
    for id in ids {
        let newest = newest.0.get(id);
        let Some(current) = on.0.get(id).or(base.0.get(id)).or(newest) else { continue };
        let newest = newest.unwrap_or(current);
        let was_rolled_back = has_rolled_back(service) && next.0.get(id) == Some(newest);
        let is_refused = newest != current && (was_rolled_back || refused.0.get(id) == Some(newest));
        if is_refused {
            no.0.insert(id.clone(), newest.clone());
        }
        from.0.insert(id.clone(), current.clone());
        to.0.insert(id.clone(), if is_refused { current } else { newest }.clone());
    }
    if from == to {
        return match service.update {
            // In the middle of a rollback a further update would be one too many.
            Some(UpdateState::RollbackCompleted) if no != refused && !no.0.is_empty() => {
                Verdict::Refuse { labels: [(REFUSED.to_owned(), Some(no.to_string()))].into(), versions: no }
            }
            _ if !no.0.is_empty() => Verdict::Refused(no),
            Some(UpdateState::Paused) if !is_foreign(service) => Verdict::Paused,
            _ => Verdict::Current,
        };
    }
    if is_foreign(service) {
        return Verdict::Foreign;
    }
    let refused = (!no.0.is_empty()).then(|| no.to_string());
    let mut labels =
        Relabel::from([(VERSIONS.to_owned(), Some(from.to_string())), (NEXT.into(), Some(to.to_string()))]);
    labels.insert(REFUSED.into(), refused.clone());
    let is = |name: &str| service.labels.get(name) == labels[name].as_ref();
    if is(VERSIONS) && is(NEXT) && is(REFUSED) && !has_rolled_back(service) {
        return Verdict::Rotate { labels: [(VERSIONS.to_owned(), Some(to.to_string()))].into(), to };
    }
    Verdict::Announce { from, to, labels }
}

/// Whether an update stands still that is not a rotation of dso's. An update of dso's own would make Swarm go on with it.
fn is_foreign(service: &Service) -> bool {
    let on = service.labels.get(VERSIONS);
    match service.update {
        Some(UpdateState::Paused) => {
            let before = service.previous.as_ref().map(|labels| labels.get(VERSIONS));
            on.is_none() || before.is_none_or(|before| before == on)
        }
        // Swarm does not tell what it came back from; a rotation's goal is in the labels still.
        Some(UpdateState::RollbackPaused) => on.is_none() || service.labels.get(NEXT) == on,
        _ => false,
    }
}

fn has_rolled_back(service: &Service) -> bool {
    matches!(service.update, Some(UpdateState::RollbackCompleted | UpdateState::RollbackPaused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(pairs: &[(&str, &str)]) -> Versions {
        Versions(pairs.iter().map(|(id, version)| (id.to_string(), version.to_string())).collect())
    }

    fn service(labels: &[(&str, &[(&str, &str)])], update: Option<UpdateState>) -> Service {
        Service {
            id: "s".into(),
            name: "app".into(),
            index: 1,
            labels: labels.iter().map(|(name, pairs)| (name.to_string(), versions(pairs).to_string())).collect(),
            secrets: BTreeSet::new(),
            is_job: false,
            previous: None,
            update,
        }
    }

    fn on(service: &Service, newest: &[(&str, &str)], base: &[(&str, &str)]) -> Verdict {
        plan(service, &["a".to_owned(), "b".to_owned()].into(), &versions(newest), &versions(base))
    }

    const NEW: [(&str, &str); 2] = [("a", "2"), ("b", "1")];
    const OLD: [(&str, &str); 2] = [("a", "1"), ("b", "1")];

    #[test]
    fn what_is_seen_first_is_adopted() {
        assert_eq!(on(&service(&[], None), &NEW, &[]), Verdict::Current);
        assert_eq!(on(&service(&[], None), &[], &[]), Verdict::Current, "a provider that was never reached");
    }

    #[test]
    fn a_change_is_announced_with_the_way_back_and_then_made() {
        let Verdict::Announce { from, to, labels } = on(&service(&[], None), &NEW, &OLD) else { panic!() };
        assert_eq!((from, to), (versions(&OLD), versions(&NEW)));
        assert_eq!(labels[VERSIONS], Some(versions(&OLD).to_string()));
        let announced = service(&[(VERSIONS, &OLD), (NEXT, &NEW)], None);
        let labels = [(VERSIONS.to_owned(), Some(versions(&NEW).to_string()))].into();
        assert_eq!(on(&announced, &NEW, &[]), Verdict::Rotate { to: versions(&NEW), labels });
        let rotated = service(&[(VERSIONS, &NEW), (NEXT, &NEW)], Some(UpdateState::Completed));
        assert_eq!(on(&rotated, &NEW, &OLD), Verdict::Current, "the label goes before what this process gave");
    }

    #[test]
    fn another_version_than_was_announced_is_announced_anew() {
        let announced = service(&[(VERSIONS, &OLD), (NEXT, &NEW)], None);
        let Verdict::Announce { to, .. } = on(&announced, &[("a", "3"), ("b", "1")], &[]) else { panic!() };
        assert_eq!(to, versions(&[("a", "3"), ("b", "1")]));
    }

    #[test]
    fn while_swarm_is_at_work_nothing_is_done() {
        let labels: [(&str, &[(&str, &str)]); 2] = [(VERSIONS, &OLD), (NEXT, &OLD)];
        assert_eq!(on(&service(&labels, Some(UpdateState::Updating)), &NEW, &[]), Verdict::Busy { back: false });
        assert_eq!(on(&service(&labels, Some(UpdateState::RollbackStarted)), &NEW, &[]), Verdict::Busy { back: true });
    }

    #[test]
    fn what_swarm_rolled_back_is_refused_until_there_is_a_newer_one() {
        let refused: &[(&str, &str)] = &[("a", "2")];
        for state in [UpdateState::RollbackCompleted, UpdateState::RollbackPaused] {
            let back = service(&[(VERSIONS, &OLD), (NEXT, &NEW)], Some(state));
            match on(&back, &NEW, &[]) {
                Verdict::Refuse { labels, .. } if state == UpdateState::RollbackCompleted => {
                    assert_eq!(labels, [(REFUSED.to_owned(), Some(versions(refused).to_string()))].into());
                }
                verdict => assert_eq!(verdict, Verdict::Refused(versions(refused))),
            }
            let noted = service(&[(VERSIONS, &OLD), (NEXT, &NEW), (REFUSED, refused)], None);
            assert_eq!(
                on(&noted, &NEW, &[]),
                Verdict::Refused(versions(refused)),
                "also after an update of other things"
            );
            assert_eq!(on(&back, &[], &[]), Verdict::Current, "nothing is known of anything newer");
            assert!(matches!(on(&back, &[("a", "3"), ("b", "1")], &[]), Verdict::Announce { .. }));
        }
        let touched = service(&[(VERSIONS, &OLD), (NEXT, &NEW)], None);
        assert!(matches!(on(&touched, &NEW, &[]), Verdict::Rotate { .. }), "a person has taken the label away");
        let theirs = service(&[(VERSIONS, &NEW), (NEXT, &NEW)], Some(UpdateState::RollbackCompleted));
        assert_eq!(on(&theirs, &NEW, &[]), Verdict::Current, "what was rolled back was no rotation");
    }

    #[test]
    fn a_refused_secret_does_not_hold_up_the_others_nor_go_along_with_them() {
        let back = service(&[(VERSIONS, &OLD), (NEXT, &NEW)], Some(UpdateState::RollbackCompleted));
        let newest = [("a", "2"), ("b", "2")];
        let Verdict::Announce { to, labels, .. } = on(&back, &newest, &[]) else { panic!() };
        assert_eq!(to, versions(&[("a", "1"), ("b", "2")]));
        assert_eq!(labels[REFUSED], Some(versions(&[("a", "2")]).to_string()));
        let next: &[(&str, &str)] = &[("a", "1"), ("b", "2")];
        let announced = service(&[(VERSIONS, &OLD), (NEXT, next), (REFUSED, &[("a", "2")])], None);
        assert!(matches!(on(&announced, &newest, &[]), Verdict::Rotate { .. }));
        let rotated = service(&[(VERSIONS, next), (NEXT, next), (REFUSED, &[("a", "2")])], None);
        assert_eq!(on(&rotated, &newest, &[]), Verdict::Refused(versions(&[("a", "2")])));
        assert!(matches!(on(&rotated, &[("a", "3"), ("b", "2")], &[]), Verdict::Announce { .. }));
    }

    #[test]
    fn a_paused_update_waits_for_a_person_or_a_newer_version() {
        let mut paused = service(&[(VERSIONS, &NEW), (NEXT, &NEW)], Some(UpdateState::Paused));
        paused.previous = Some(service(&[(VERSIONS, &OLD), (NEXT, &NEW)], None).labels);
        assert_eq!(on(&paused, &NEW, &[]), Verdict::Paused);
        assert!(matches!(on(&paused, &[("a", "3"), ("b", "1")], &[]), Verdict::Announce { .. }));
    }
    #[test]
    fn an_update_of_somebody_elses_that_stands_still_is_left_so() {
        let newer = [("a", "3"), ("b", "1")];
        let labels: [(&str, &[(&str, &str)]); 2] = [(VERSIONS, &NEW), (NEXT, &NEW)];
        let mut theirs = service(&labels, Some(UpdateState::Paused));
        theirs.previous = Some(theirs.labels.clone());
        assert_eq!((on(&theirs, &newer, &[]), on(&theirs, &NEW, &[])), (Verdict::Foreign, Verdict::Current));
        theirs.previous = None;
        assert_eq!(on(&theirs, &newer, &[]), Verdict::Foreign, "Swarm does not say what was before");
        let mut never = service(&[], Some(UpdateState::Paused));
        never.previous = Some(service(&labels, None).labels);
        assert_eq!(on(&never, &newer, &NEW), Verdict::Foreign, "a deployment that has wiped the labels");
        assert_eq!(on(&service(&labels, Some(UpdateState::RollbackPaused)), &newer, &[]), Verdict::Foreign);
    }

    #[test]
    fn a_job_is_never_written_to_since_any_update_runs_it_again() {
        for labels in [&[][..], &[(VERSIONS, &OLD[..]), (NEXT, &NEW[..])]] {
            let job = Service { is_job: true, ..service(labels, None) };
            assert_eq!(on(&job, &NEW, &OLD), Verdict::Current);
        }
    }
}
