//! Taking back what running containers have of a volume, and this process does not see: since `docker plugin disable -f`,
//! an upgrade, or whatever else made the engine unmount it on the host.
//!
//! # Guarantees
//! - The containers go on reading from the very files that they have; none is restarted, and nothing is written here.
//! - One volume's containers may have different files, from mounts of different times. The newest are taken back and shown to
//!   further containers; the status names the containers that have others.
//!
//! # Caveats
//! - The ledger stays as it was: what ended while no plugin ran is still counted, until the engine tells of its end.

use super::{Driver, DriverError, Event, Volume, Work, lock, mount};
use crate::{
    projection::{Orphan, Projection, ProjectionError},
    volume::{VolumeName, VolumeSpec},
};
use std::{fs, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long it may take to look into the mount namespaces of other processes. A file system of theirs may not answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How many containers a message names.
const NAMED: usize = 5;

impl Driver {
    /// Takes back what containers have of the volume `name`, or of every volume, out of sight of this process; returns the
    /// volumes that are shown again. Asks neither the engine nor a provider, and does nothing where there is nothing to do.
    pub async fn take_back(&self, name: Option<&VolumeName>) -> Vec<VolumeName> {
        let volumes: Vec<_> = lock(&self.volumes).values().cloned().collect();
        let is_meant = |volume: &Arc<Volume>| name.is_none_or(|name| volume.name == *name);
        let volumes: Vec<_> = volumes.into_iter().filter(|v| is_meant(v) && lock(&v.seen).mounts > 0).collect();
        if volumes.is_empty() {
            return Vec::new();
        }
        let (mut orphans, fault) = match self.orphans().await {
            Ok(orphans) => (orphans, None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        let mut taken = Vec::new();
        for volume in volumes {
            let own = orphans.extract_if(.., |orphan| orphan.volume == volume.name.as_str()).collect();
            let mut work = volume.work.lock().await;
            if self.reclaim(&volume, &mut work, fault.clone().map_or(Ok(own), Err)).await {
                taken.push(volume.name.clone());
            }
        }
        taken
    }

    /// The same for one volume, whose lock the caller has.
    pub(super) async fn take_back_one(&self, volume: &Arc<Volume>, work: &mut Work) {
        let mut orphans = self.orphans().await;
        if let Ok(orphans) = &mut orphans {
            orphans.retain(|orphan| orphan.volume == volume.name.as_str());
        }
        self.reclaim(volume, work, orphans).await;
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, String> {
        let late = |_| format!("the containers' mounts could not be looked at within {} s", LIMIT.as_secs());
        // One look at a time: one that never ends must not use up the threads.
        let turn = timeout(LIMIT, self.looking.clone().lock_owned()).await.map_err(late)?;
        let mounter = self.parts.mounter.clone();
        let look = tokio::task::spawn_blocking(move || {
            let found = mounter.orphans();
            drop(turn);
            found
        });
        let found = timeout(LIMIT, look).await.map_err(late)?;
        found.map_err(|_| "an internal fault, which the plugin's log tells of".to_owned())?.map_err(|e| e.to_string())
    }

    /// Shows the newest of the volume's orphans, if it shows nothing; notes the others. Whether it is shown now, and was not before.
    async fn reclaim(&self, volume: &Arc<Volume>, work: &mut Work, orphans: Result<Vec<Orphan>, String>) -> bool {
        if work.removed || work.record.ledger.is_empty() {
            return false;
        }
        let live = volume.is_live();
        let shown = self.parts.mounter.mountpoint(volume.name.as_str());
        let (mut taken, mut left, mut fault) = (false, Vec::new(), None);
        match orphans {
            // What was known of it before may still be so.
            Err(_) if live => return false,
            Err(reason) => fault = Some(reason),
            Ok(orphans) => {
                for orphan in orphans.into_iter().filter(|orphan| !(live && orphan.is_at(&shown))) {
                    let told = describe(&orphan);
                    if live || taken {
                        // Who merely looks at the host's files has no use for them.
                        left.extend((!orphan.processes.is_empty()).then_some(told));
                        continue;
                    }
                    match self.show(volume, work, orphan).await {
                        Ok(()) => taken = true,
                        Err(error) => {
                            tracing::error!(volume = %volume.name, %error, from = told, "cannot be taken back");
                            (fault, left) = (Some(error.to_string()), [left, vec![told]].concat());
                        }
                    }
                }
            }
        }
        if !live && !taken && left.is_empty() {
            tracing::warn!(volume = %volume.name, "mounted by an earlier process, and out of reach of this one");
        }
        if !left.is_empty() {
            tracing::warn!(volume = %volume.name, containers = left.join(", "), "other files than those that are shown");
        }
        let mut seen = lock(&volume.seen);
        let fault = fault.as_deref().map(out_of_reach);
        if live || taken {
            seen.left_behind = left_behind(&left);
        } else {
            // Also told when the next container has made it live again, with files of its own.
            seen.left_behind = left_behind(&left).or(fault.clone());
            // Where nothing was found, what was known before is the better reason.
            seen.error = fault.or(seen.error.take());
        }
        taken
    }

    async fn show(&self, volume: &Arc<Volume>, work: &mut Work, orphan: Orphan) -> Result<(), DriverError> {
        let spec = volume.spec()?;
        let (mounter, size, name) = (self.parts.mounter.clone(), spec.size, volume.name.clone());
        let taken = self.on_files(volume, 0, move |projection| {
            let doing = || "mount what its containers have".to_owned();
            mounter.take_back(&orphan).map_err(|error| ProjectionError::Io { doing: doing(), error })?;
            let adopted = Projection::adopt(mounter.clone(), name.as_str(), size);
            if adopted.is_err()
                && let Err(error) = mounter.destroy(name.as_str())
            {
                tracing::error!(volume = %name, %error, "a volume that could not be taken back is left half mounted");
            }
            *projection = Some(adopted?);
            Ok(())
        });
        taken.await?;
        self.took_over(volume, work, spec);
        tracing::info!(volume = %volume.name, "taken back from its containers");
        Ok(())
    }

    /// Notes that the volume shows what an earlier process has made.
    pub(super) fn took_over(&self, volume: &Arc<Volume>, work: &mut Work, spec: &VolumeSpec) {
        self.users.add(&volume.name, spec.secrets(), spec.refresh);
        let live = mount::live(volume);
        work.record.generation = live.as_ref().map_or(0, |live| live.generation);
        let mut seen = lock(&volume.seen);
        (seen.live, seen.error) = (live, None);
        drop(seen);
        self.tell(Event::Joined(volume.name.clone()));
    }
}

/// Who has it, as a person finds them.
fn describe(orphan: &Orphan) -> String {
    let mut holders: Vec<_> = orphan
        .processes
        .iter()
        .map(|pid| match fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().as_deref().and_then(container) {
            Some(id) => format!("container {}", &id[..12]),
            None => format!("process {pid}"),
        })
        .collect();
    holders.dedup();
    format!("{} (generation {})", holders.join(", "), orphan.generation)
}

/// The container whose ID is in the text of /proc/PID/cgroup.
fn container(cgroup: &str) -> Option<&str> {
    cgroup.split(|character: char| !character.is_ascii_hexdigit()).rfind(|word| word.len() == 64)
}

fn left_behind(containers: &[String]) -> Option<String> {
    let (named, more) = containers.split_at(containers.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!named.is_empty()).then(|| {
        format!("files of an earlier mount, which are not refreshed any more: restart {}{more}", named.join(", "))
    })
}

fn out_of_reach(reason: &str) -> String {
    format!(
        "its containers still have the files that an earlier process mounted, which cannot be taken back ({reason}) and \
         are not refreshed any more: restart the containers"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        driver::{State, workbench::Bench},
        volume::MountId,
    };
    use std::fs;

    async fn orphaned() -> Bench {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", b"first");
        bench.volume("v", &[("file.x", "p://app")]).await;
        bench.mount("v", "a").await.unwrap();
        bench.orphan("v");
        bench
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_takes_back_what_containers_have_and_counts_them_as_before() {
        let bench = orphaned().await;
        bench.provider.calls();
        let mut bench = bench.restart().await;
        assert_eq!(bench.told.try_recv(), Ok(Event::Joined("v".parse().unwrap())));
        let status = bench.status("v");
        assert_eq!((status.state, status.mounts, status.generation, status.error), (State::Current, 1, 1, None));
        assert_eq!(bench.provider.calls(), (0, 0), "a start asks no provider");
        bench.provider.put("app", "2", b"second");
        tokio::time::advance(Duration::from_secs(60)).await;
        bench.check_and_refresh("v").await;
        assert_eq!(bench.read("v", "x"), "second");
        assert!(bench.driver.take_back(None).await.is_empty(), "there is nothing more to do");
        bench.unmount("v", "a").await;
        assert_eq!(bench.status("v").state, State::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_looked_for_is_orphaned_with_the_reason_and_taken_back_later() {
        let bench = orphaned().await;
        bench.blind(true);
        let bench = bench.restart().await;
        let status = bench.status("v");
        assert_eq!((status.state, status.mounts), (State::Orphaned, 1));
        let error = status.error.unwrap();
        assert!(error.contains("(no look today)") && error.ends_with("restart the containers"), "{error}");
        bench.blind(false);
        let name: VolumeName = "v".parse().unwrap();
        assert!(bench.driver.take_back(Some(&"other".parse().unwrap())).await.is_empty());
        assert_eq!(bench.driver.take_back(Some(&name)).await, [name]);
        let status = bench.status("v");
        assert_eq!((status.state, status.mounts, status.error), (State::Current, 1, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_does_not_end_keeps_no_mount_waiting_for_longer_than_its_limit() {
        let bench = orphaned().await;
        bench.blind(true);
        let bench = bench.restart().await;
        bench.blind(false);
        bench.stall(true);
        let driver = bench.driver.clone();
        let mount = tokio::spawn(async move { driver.mount("v", MountId::new("b"), "engine").await });
        for _ in 0..10 {
            tokio::time::advance(LIMIT / 4).await;
            tokio::task::yield_now().await;
        }
        assert!(mount.is_finished());
        mount.await.unwrap().unwrap();
        let error = bench.status("v").error.unwrap();
        assert!(error.contains("could not be looked at within 5 s"), "{error}");
        bench.stall(false);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_mounted_is_orphaned_and_the_next_container_gets_files_of_its_own() {
        let bench = orphaned().await;
        bench.hold(true);
        let bench = bench.restart().await;
        let status = bench.status("v");
        assert_eq!(status.state, State::Orphaned);
        let error = status.error.unwrap();
        assert!(error.contains("held") && error.ends_with("restart the containers"), "{error}");
        bench.mount("v", "b").await.unwrap();
        let status = bench.status("v");
        assert_eq!((status.state, status.generation, status.mounts), (State::Stale, 2, 1));
        assert!(status.error.unwrap().ends_with("(generation 1)"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_further_container_gets_what_the_others_have_and_is_counted_with_them() {
        let bench = orphaned().await;
        bench.blind(true);
        let bench = bench.restart().await;
        bench.blind(false);
        bench.provider.put("app", "2", b"second");
        bench.mount("v", "b").await.unwrap();
        // As on any volume that is mounted already: the check comes after.
        assert_eq!((bench.read("v", "x").as_str(), bench.status("v").mounts), ("first", 2));
        bench.check_and_refresh("v").await;
        assert_eq!(bench.read("v", "x"), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_the_newest_is_shown_and_the_status_tells_of_the_others() {
        let bench = orphaned().await;
        bench.blind(true);
        let bench = bench.restart().await;
        bench.mount("v", "b").await.unwrap();
        let status = bench.status("v");
        assert_eq!((status.generation, status.mounts), (2, 1), "the old one could not be looked for");
        assert!(status.error.unwrap().ends_with("restart the containers"));
        bench.orphan("v");
        bench.blind(false);
        let bench = bench.restart().await;
        let status = bench.status("v");
        assert_eq!((status.generation, status.state), (2, State::Stale));
        let error = status.error.unwrap();
        assert!(error.contains("restart process ") && error.ends_with("(generation 1)"), "{error}");
        // That container has ended.
        fs::remove_dir_all(bench.dir.path().join("state/orphans/v@1")).unwrap();
        bench.driver.take_back(None).await;
        assert_eq!((bench.status("v").state, bench.status("v").error), (State::Current, None));
    }

    #[test]
    fn a_container_is_known_by_its_id_in_the_cgroups_of_its_processes() {
        let id = "ab".repeat(32);
        for cgroup in
            [format!("0::/docker/{id}\n"), format!("12:pids:/x\n1:name=systemd:/system.slice/docker-{id}.scope")]
        {
            assert_eq!(container(&cgroup), Some(id.as_str()), "{cgroup}");
        }
        assert_eq!(container("0::/user.slice/session-abcdef.scope\n"), None);
    }

    #[test]
    fn a_message_names_a_few_containers_and_counts_the_others() {
        assert_eq!(left_behind(&[]), None);
        let names: Vec<_> = (1..=7).map(|number| format!("c{number}")).collect();
        let told = left_behind(&names).unwrap();
        assert!(told.ends_with("restart c1, c2, c3, c4, c5 and 2 more"), "{told}");
    }
}
