//! The kernel's list of mounts: `/proc/…/mountinfo`, as proc(5) describes it.

use std::{
    ffi::OsString,
    fs, io,
    os::{fd::AsRawFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

/// One mount of this mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// Of the file system: major and minor number.
    pub device: (u32, u32),
    /// What of the file system is mounted: `/`, or a part of it.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Flags of this mount: `ro`, `nosuid`, …
    pub options: Vec<String>,
    /// The peer group to and from which mounts beneath it propagate.
    pub peers: Option<u64>,
    pub fstype: String,
    pub source: String,
    /// Options of the file system, whatever its mounts: `size=1024k`, `noswap`, …
    pub super_options: Vec<String>,
}

/// Every mount that the calling thread sees.
pub fn read() -> io::Result<Vec<Mount>> {
    // A mountpoint of someone else need not be UTF-8.
    Ok(parse(&String::from_utf8_lossy(&fs::read("/proc/thread-self/mountinfo")?)))
}

/// Every mount that the process `pid` sees.
pub fn of_process(pid: u32) -> io::Result<Vec<Mount>> {
    Ok(parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/mountinfo"))?)))
}

/// The ID of the mount that `path` lies on. Works on kernels whose `statx` does not tell it.
pub fn id_of(path: &Path) -> io::Result<u64> {
    let dir = fs::File::open(path)?;
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", dir.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell the ID of a mount"))
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let (major, minor) = mount.nth(1)?.split_once(':')?;
    let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
    let options = words(mount.next()?);
    let peers = mount.find_map(|tag| tag.strip_prefix("shared:")?.parse().ok());
    let mut filesystem = filesystem.splitn(3, ' ');
    Some(Mount {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: root.into(),
        point: point.into(),
        options,
        peers,
        fstype: filesystem.next()?.into(),
        source: filesystem.next()?.into(),
        super_options: words(filesystem.next()?),
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// Blanks, backslashes and line ends of a path are written as three octal digits.
fn unescape(text: &str) -> OsString {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match tail.get(..3).and_then(octal).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_tags_and_escapes() {
        let text = "36 35 98:0 /a /data\\040x/\\134v rw,nosuid shared:7 master:2 - tmpfs dso rw,size=1024k,noswap\n\
                    37 35 0:1 / /p ro - ramfs none rw";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].device, mounts[0].peers), (36, (98, 0), Some(7)));
        assert_eq!(mounts[0].root, Path::new("/a"));
        assert_eq!(mounts[0].point, Path::new("/data x/\\v"));
        assert_eq!(mounts[0].options, ["rw", "nosuid"]);
        assert_eq!(mounts[0].super_options, ["rw", "size=1024k", "noswap"]);
        assert_eq!((mounts[1].peers, mounts[1].fstype.as_str(), mounts[1].source.as_str()), (None, "ramfs", "none"));
    }

    #[test]
    fn the_mount_that_a_path_lies_on_is_in_the_list() {
        let id = id_of(Path::new("/proc/self")).unwrap();
        assert!(read().unwrap().iter().any(|mount| mount.id == id && mount.fstype == "proc"));
    }
}
