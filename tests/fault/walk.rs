//! The walks.

use crate::{
    edges::{Edge, Fault, Plan},
    life::{LIFE, Life, Step},
    world::{World, in_world},
};
use dso::provider::ErrorKind;
use std::time::Duration;
use tokio::time::Instant;

const KINDS: [ErrorKind; 11] = [
    ErrorKind::Unreachable,
    ErrorKind::Tls,
    ErrorKind::Timeout,
    ErrorKind::Unavailable,
    ErrorKind::Throttled,
    ErrorKind::Unauthenticated,
    ErrorKind::Forbidden,
    ErrorKind::NotFound,
    ErrorKind::Redirected,
    ErrorKind::Malformed,
    ErrorKind::Misconfigured,
];

/// Lives again and again, each time with the next call failing, until none is left to fail. Returns how many there were.
fn walk(world: &World, edge: Option<Edge>, fault: Fault, kind: ErrorKind, batched: bool) -> usize {
    for nth in 1.. {
        let plan = Plan { edge, nth, fault, kind };
        if !live(world, Some(plan), &[], batched) {
            return nth - 1;
        }
    }
    unreachable!()
}

/// One life from nothing to nothing; tells whether the fault came.
fn live(world: &World, plan: Option<Plan>, restarts: &[usize], batched: bool) -> bool {
    in_paused_time(async {
        let kind = plan.map_or(ErrorKind::Unreachable, |plan| plan.kind);
        let mut life = Life::begin(world, kind, batched).await;
        let came = life.live(plan, restarts).await;
        life.assert_nothing_left(&format!("{plan:?}, restarts {restarts:?}"));
        came
    })
}

fn in_paused_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(run)
}

#[test]
fn whichever_call_to_the_provider_fails_and_how_the_old_files_stay_and_the_repeated_step_succeeds() {
    in_world(|world| {
        for kind in KINDS {
            for fault in [Fault::Once, Fault::Lasting] {
                // Two secrets: read, checked, read again, and checked before the last mount.
                assert_eq!(walk(world, Some(Edge::Provider), fault, kind, false), 8, "{kind:?} {fault:?}");
                // One call tells the versions of both, but for a mount.
                assert_eq!(walk(world, Some(Edge::Provider), fault, kind, true), 7, "{kind:?} {fault:?}");
            }
        }
        assert_eq!(walk(world, Some(Edge::Provider), Fault::Panic, ErrorKind::Malformed, false), 8);
    });
}

#[test]
fn whichever_call_to_the_mounter_fails_nothing_stray_is_mounted() {
    in_world(|world| {
        for fault in [Fault::Once, Fault::Lasting] {
            let walked = walk(world, Some(Edge::Mounter), fault, ErrorKind::Unreachable, false);
            assert_eq!(
                walked, 10,
                "two times destroy, create, share, destroy; resize and, for the removal, destroy: {fault:?}"
            );
        }
    });
}

#[test]
fn whichever_write_to_the_store_fails_the_files_and_the_ledger_stay_exact() {
    in_world(|world| {
        for fault in [Fault::Once, Fault::Lasting] {
            let walked = walk(world, Some(Edge::Store), fault, ErrorKind::Unreachable, false);
            assert_eq!(walked, 8, "each step but the change, and what the check publishes: {fault:?}");
        }
    });
}

#[test]
fn a_process_that_dies_at_any_call_leaves_what_the_next_one_goes_on_from() {
    in_world(|world| {
        let walked = walk(world, None, Fault::Death, ErrorKind::Unreachable, false);
        assert_eq!(walked, 8 + 10 + 8, "every call of every edge");
    });
}

#[test]
fn a_process_that_dies_after_any_step_leaves_what_the_next_one_goes_on_from() {
    in_world(|world| {
        for at in 0..LIFE.len() {
            live(world, None, &[at], false);
        }
        live(world, None, &Vec::from_iter(0..LIFE.len()), false);
    });
}

#[test]
fn a_start_that_fails_at_any_call_loses_no_container() {
    in_world(|world| {
        let (mounted, edge, kind) = (2, Some(Edge::Mounter), ErrorKind::Unreachable);
        let start = |nth| async move {
            let mut life = Life::begin(world, kind, false).await;
            life.go_on(0..mounted, None, &[]).await;
            life.switch.arm(Plan { edge, nth, fault: Fault::Once, kind });
            let came = life.restart().await;
            life.switch.disarm();
            // What could not be taken over at the start is taken over by the next mount, and refreshed again.
            life.go_on(mounted..LIFE.len(), None, &[]).await;
            life.assert_nothing_left(&format!("call {nth} of the start"));
            came
        };
        let walked = (1..).take_while(|nth| in_paused_time(start(*nth))).count();
        assert_eq!(walked, 3, "shared, adopt, and the look for what containers have out of sight");
    });
}

#[test]
fn a_check_that_panics_is_made_again() {
    in_world(|world| {
        in_paused_time(async {
            let mut life = Life::begin(world, ErrorKind::Unreachable, false).await;
            life.go_on(0..4, None, &[]).await;
            assert!(LIFE[3] == Step::Change && !life.is_current());
            life.switch.arm(Plan {
                edge: Some(Edge::Provider),
                nth: 1,
                fault: Fault::Panic,
                kind: ErrorKind::Malformed,
            });
            let cancel = life.keep_current();
            let deadline = Instant::now() + Duration::from_secs(120);
            while !life.is_current() {
                assert!(Instant::now() < deadline, "the change never arrives");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert!(life.switch.tripped());
            cancel.cancel();
            life.go_on(4..LIFE.len(), None, &[]).await;
            life.assert_nothing_left("after a check that panicked");
        });
    });
}
