//! What a volume shows: sets of files, written generation by generation into memory of the volume's own.
//!
//! # Guarantees
//! - All files of a volume change together, by one rename, or not at all.
//! - A reader that resolves `..data` once finds in it files of one generation, for as long as it is kept.
//! - A failure leaves the generation that was served in its place, and nothing half-written beside it.
//!
//! # Assumptions
//! - Nobody else writes: the host and the containers have read-only mounts.
//! - One call at a time for one volume: the methods that alter it take `&mut self`.
//!
//! # Caveats
//! - While one generation replaces another, both are in memory: a volume may for that time take twice its `size`.
//! - A reader that is slower than two rotations finds that its generation is gone, and has to open its files again.

mod error;
mod generation;
mod marker;
mod mounter;
pub mod mountinfo;
mod orphan;
mod owner;
mod reconnect;
mod root;
mod set;
mod tmpfs;

use crate::secret::SecretVersion;
use error::Doing;
use generation::Generation;
use marker::Marker;
use root::{Root, directory};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

pub use error::ProjectionError;
pub use mounter::Mounter;
pub use orphan::Orphan;
pub use set::{File, FileSet};
pub use tmpfs::Tmpfs;

/// The version of every secret that a generation was made from, by its reference without a field.
pub type Versions = BTreeMap<String, SecretVersion>;

/// What [`Projection::replace`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The same files are served as before.
    Same,
    /// A new generation is served.
    Rotated,
}

/// The files of one volume, mounted and served.
pub struct Projection {
    mounter: Arc<dyn Mounter>,
    volume: String,
    /// The bound of one generation, and of the tmpfs while one is all there is.
    size: u64,
    /// The bound that the tmpfs has now.
    capacity: u64,
    /// What all generations in the tmpfs may take.
    used: u64,
    path: PathBuf,
    live: Marker,
    /// What was served before, kept for those who read it.
    previous: Option<Kept>,
    /// What [`Projection::revert`] goes back to while what came after it is not verified: kept over any number of
    /// rotations.
    base: Option<Kept>,
    next: u64,
}

/// A generation beside the one that is served, and what it takes.
#[derive(Clone, Copy)]
struct Kept {
    generation: u64,
    cost: u64,
}

// === impl Projection ===

impl Projection {
    /// Mounts a volume, and shares it once it has all of its files. On failure nothing stays mounted.
    pub fn create(
        mounter: Arc<dyn Mounter>,
        volume: &str,
        size: u64,
        generation: u64,
        set: &FileSet,
        versions: Versions,
    ) -> Result<Self, ProjectionError> {
        let live = Marker::new(mounter.owner(), volume, generation, set, versions);
        let used = fit(&live, size)?;
        let path = mounter.create(volume, size).doing("mount the volume's tmpfs")?;
        let filled = fill(&path, set, &live);
        if let Err(error) = filled.and_then(|()| mounter.share(volume).doing("share the volume with the host")) {
            if let Err(error) = mounter.destroy(volume) {
                tracing::error!(volume, %error, "a volume that could not be made is left half mounted");
            }
            return Err(error);
        }
        let (volume, next) = (volume.to_owned(), generation + 1);
        Ok(Self { mounter, volume, size, capacity: size, used, path, live, previous: None, base: None, next })
    }

    /// What `set` would take in a volume of `size`, if it may hold that.
    pub fn measure(
        mounter: &dyn Mounter,
        volume: &str,
        size: u64,
        set: &FileSet,
        versions: Versions,
    ) -> Result<u64, ProjectionError> {
        fit(&Marker::new(mounter.owner(), volume, 1, set, versions), size)
    }

    /// Takes over a volume that a process before this one mounted, as its marker describes it.
    ///
    /// A mount that is not dso's is refused, and left as it is.
    pub fn adopt(mounter: Arc<dyn Mounter>, volume: &str, size: u64) -> Result<Self, ProjectionError> {
        let live = recognise(&*mounter, volume)?;
        let path = mounter.adopt(volume).doing("take the volume's mount over")?;
        let mut adopted = Self {
            mounter,
            volume: volume.to_owned(),
            size,
            capacity: size,
            used: live.cost(),
            path,
            next: live.generation + 1,
            live,
            previous: None,
            base: None,
        };
        // The volume can be served whatever comes of this; the next `replace` does it again.
        if let Err(error) = adopted.tidy() {
            tracing::warn!(volume, %error, "what an interrupted rotation left in the volume could not be removed");
        }
        Ok(adopted)
    }

    /// Serves `set` from now on. The generation served until now is kept, and so is the last one that was committed. Those before them
    /// go with [`Projection::commit`], or now where there is no room for them beside the new one.
    ///
    /// If bytes, modes, owners and paths are what is served already, only the versions are noted.
    pub fn replace(&mut self, set: &FileSet, versions: Versions) -> Result<Change, ProjectionError> {
        let root = self.open()?;
        let next = Marker::new(self.mounter.owner(), &self.volume, self.next, set, versions);
        if self.serves(&root, &next, set) {
            self.note_versions(&root, next.versions)?;
            return Ok(Change::Same);
        }
        let cost = fit(&next, self.size)?;
        let present = root.contents().doing("list the volume")?;
        // After a commit the tidying up can wait for the next one. What is on trial may be replaced again and again before there is
        // one, and after a revert the abandoned generation is nobody's previous one.
        let can_wait = self.base.is_none() && self.previous.is_some() && self.used + cost <= self.size;
        if !can_wait {
            self.prune(&root, &present.generations, None)?;
        }
        self.make_room(cost)?;
        let written = write_and_publish(&root, set, &next, &present.names);
        // A number is not used twice, not even after a failure: a reader may have its directory open.
        self.next += 1;
        if let Err(error) = written {
            if let Err(error) = root.remove(next.generation) {
                tracing::warn!(volume = self.volume, %error, "a half-written generation could not be removed");
            }
            return Err(error);
        }
        self.used += cost;
        let old = Kept::of(&std::mem::replace(&mut self.live, next));
        self.base = self.base.or(Some(old));
        self.previous = Some(old);
        Ok(Change::Rotated)
    }

    /// What is served is good: there is no way back from it any more. What was served before it stays, for those who
    /// read it, and what is older is removed.
    pub fn commit(&mut self) -> Result<(), ProjectionError> {
        self.base = None;
        let root = self.open()?;
        let present = root.contents().doing("list the volume")?;
        self.prune(&root, &present.generations, self.previous)
    }

    /// The generation to go back to, if what is served is not committed.
    pub fn base(&self) -> Option<u64> {
        self.base.map(|kept| kept.generation)
    }

    /// As after the rotations that led from `base` to what is served: an earlier process made them, and did not see
    /// them verified. False if `base` is not there any more.
    pub fn hold(&mut self, base: u64) -> Result<bool, ProjectionError> {
        let root = self.open()?;
        let Ok(generation) = root.generation(base) else { return Ok(false) };
        let Ok(marker) = generation.marker(&self.volume, base) else { return Ok(false) };
        self.base = Some(Kept::of(&marker)).filter(|_| base != self.live.generation);
        Ok(true)
    }

    /// Serves the last committed generation again, and notes the versions of the abandoned one as refused. That one stays for
    /// those who read it, until the next `replace`.
    pub fn revert(&mut self) -> Result<(), ProjectionError> {
        let base = self.base.or(self.previous).ok_or(ProjectionError::NoPrevious)?.generation;
        let root = self.open()?;
        let generation = root.generation(base).doing("open the previous generation")?;
        let marker = generation.marker(&self.volume, base).map_err(|fault| foreign(&self.volume, fault))?;
        let refusing = Marker { refused: self.live.versions.clone(), ..marker };
        self.make_room(refusing.own_cost())?;
        // First, so that a process that dies in between does not find the old files and forget why.
        generation.replace_marker(&refusing).doing("note the refused versions")?;
        root.publish(&refusing, &root.contents().doing("list the volume")?.names)?;
        self.live = refusing;
        (self.previous, self.base) = (None, None);
        Ok(())
    }

    /// The versions that were served and taken back, if nothing has been served since.
    pub fn refused(&self) -> &Versions {
        &self.live.refused
    }

    /// Forgets the refused versions: they may be served again.
    pub fn forgive(&mut self) -> Result<(), ProjectionError> {
        let root = self.open()?;
        let forgiving = Marker { refused: Versions::new(), ..self.live.clone() };
        self.note(&root, forgiving)
    }

    pub fn generation(&self) -> u64 {
        self.live.generation
    }

    pub fn versions(&self) -> &Versions {
        &self.live.versions
    }

    /// When the generation that is served was made.
    pub fn rotated(&self) -> SystemTime {
        self.live.rotated
    }

    /// The paths of the files that are served.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.live.files.keys().map(String::as_str)
    }

    /// Whether all that is served is there, as far as can be told without reading it.
    pub fn intact(&self) -> bool {
        self.open().is_ok_and(|root| self.is_intact(&root))
    }

    /// Unmounts the volume. May be called again if it fails.
    pub fn destroy(&self) -> Result<(), ProjectionError> {
        self.mounter.destroy(&self.volume).doing("unmount the volume")
    }

    fn open(&self) -> Result<Root, ProjectionError> {
        Root::open(&self.path).doing("open the volume")
    }

    fn is_intact(&self, root: &Root) -> bool {
        let live = root.generation(self.live.generation);
        root.has_links_of(&self.live) && live.is_ok_and(|live| live.has_shapes_of(&self.live))
    }

    fn serves(&self, root: &Root, wanted: &Marker, set: &FileSet) -> bool {
        let same_bytes = |live: Generation| live.has_contents_of(set);
        self.live.files == wanted.files
            && root.generation(self.live.generation).is_ok_and(same_bytes)
            && self.is_intact(root)
    }

    fn note_versions(&mut self, root: &Root, versions: Versions) -> Result<(), ProjectionError> {
        if versions == self.live.versions {
            return Ok(());
        }
        self.note(root, Marker { versions, ..self.live.clone() })
    }

    /// Gives what is served another marker.
    fn note(&mut self, root: &Root, marker: Marker) -> Result<(), ProjectionError> {
        // Until it is renamed, the new marker stands beside the old one.
        self.make_room(marker.own_cost())?;
        let live = root.generation(self.live.generation).doing("open the served generation")?;
        live.replace_marker(&marker).doing("note the versions of the secrets")?;
        self.used = self.used - self.live.own_cost() + marker.own_cost();
        self.live = marker;
        Ok(())
    }

    /// Removes every generation but the one that is served, the one to go back to and `kept`.
    fn prune(&mut self, root: &Root, present: &BTreeSet<u64>, kept: Option<Kept>) -> Result<(), ProjectionError> {
        let stay: BTreeMap<_, _> = self.base.into_iter().chain(kept).map(|kept| (kept.generation, kept.cost)).collect();
        for old in present {
            if *old != self.live.generation && !stay.contains_key(old) {
                root.remove(*old).doing(format_args!("remove the old generation {old}"))?;
            }
        }
        self.previous = kept.or(self.base);
        self.used = self.live.cost() + stay.values().sum::<u64>();
        Ok(())
    }

    /// Grows the tmpfs if `extra` bytes do not fit beside what is there, and takes back what an earlier call gave.
    fn make_room(&mut self, extra: u64) -> Result<(), ProjectionError> {
        let wanted = self.size.max(self.used + extra);
        if wanted == self.capacity {
            return Ok(());
        }
        match self.mounter.resize(&self.volume, wanted) {
            Ok(()) => self.capacity = wanted,
            Err(error) if wanted < self.capacity => {
                tracing::debug!(volume = self.volume, %error, "the tmpfs keeps the size it grew to");
            }
            failed => failed.doing("grow the tmpfs for the new generation beside the old one")?,
        }
        Ok(())
    }

    /// Removes what a process left that died in the middle of a rotation, and finds the previous generation.
    fn tidy(&mut self) -> Result<(), ProjectionError> {
        let root = self.open()?;
        let capacity = root.capacity().doing("ask for the size of the tmpfs")?;
        self.capacity = if capacity == 0 { self.size } else { capacity };
        let contents = root.contents().doing("list the volume")?;
        for number in contents.generations {
            self.next = self.next.max(number + 1);
            if number == self.live.generation {
                continue;
            }
            let marker = root.generation(number).map(|generation| generation.marker(&self.volume, number));
            match marker {
                Ok(Ok(marker)) => {
                    self.used += marker.cost();
                    if number < self.live.generation {
                        // In ascending order: the last one is the newest.
                        self.previous = Some(Kept::of(&marker));
                    }
                }
                _ => root.remove(number).doing(format_args!("remove the unfinished generation {number}"))?,
            }
        }
        if contents.names.iter().map(String::as_str).ne(self.live.names()) {
            root.publish(&self.live, &contents.names)?;
        }
        Ok(())
    }
}

// === impl Kept ===

impl Kept {
    fn of(marker: &Marker) -> Self {
        Self { generation: marker.generation, cost: marker.cost() }
    }
}

/// What the generation takes, if the volume may hold it.
fn fit(marker: &Marker, size: u64) -> Result<u64, ProjectionError> {
    let needed = marker.cost();
    if needed > size { Err(ProjectionError::TooLarge { needed, size }) } else { Ok(needed) }
}

fn fill(path: &Path, set: &FileSet, marker: &Marker) -> Result<(), ProjectionError> {
    write_and_publish(&Root::open(path).doing("open the new tmpfs")?, set, marker, &BTreeSet::new())
}

fn write_and_publish(
    root: &Root,
    set: &FileSet,
    marker: &Marker,
    present: &BTreeSet<String>,
) -> Result<(), ProjectionError> {
    Generation::write(root, &directory(marker.generation), set, marker)?;
    root.publish(marker, present)
}

/// The marker of what is mounted for `volume`, read without altering any mount.
fn recognise(mounter: &dyn Mounter, volume: &str) -> Result<Marker, ProjectionError> {
    let root = Root::open(&mounter.mountpoint(volume)).doing("open the volume's mount")?;
    if !root.is_memory().doing("ask what the volume's mount is")? {
        return Err(foreign(volume, "it is not memory".into()));
    }
    let no_generation = |error: io::Error| foreign(volume, format!("it serves no generation: {error}"));
    let live = root.live().map_err(no_generation)?;
    let generation = root.generation(live).map_err(no_generation)?;
    generation.marker(volume, live).map_err(|fault| foreign(volume, fault))
}

fn foreign(volume: &str, fault: String) -> ProjectionError {
    ProjectionError::Foreign { volume: volume.into(), fault }
}
