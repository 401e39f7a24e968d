//! The one program in the image `dso-test-scratch`: static, beside no shell. Standard library alone, since it is
//! compiled by `rustc` without cargo.
//!
//! ```text
//! probe cat FILE…            print each file, then end; status 1 if one cannot be read
//! probe same DIR N SECONDS   read all files of DIR's `..data` again and again: N files with one text;
//!                            print `reads=… torn=… lost=… failed=… last=…` whenever the text changes,
//!                            and now and then
//! probe watch FILE SECONDS   print the file each time it differs from before, and `failed` each time it cannot be read
//! probe wait                 do nothing until killed
//! ```

use std::{
    env, fs,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// How often a reader says that it still reads.
const REPORT: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cat", ref files @ ..] => cat(files),
        ["same", dir, files, seconds] => same(dir, files.parse().expect("a number of files"), deadline(seconds)),
        ["watch", file, seconds] => watch(file, deadline(seconds)),
        ["wait"] => loop {
            thread::park();
        },
        _ => {
            eprintln!("probe: cat FILE… | same DIR N SECONDS | watch FILE SECONDS | wait");
            ExitCode::from(2)
        }
    }
}

fn deadline(seconds: &str) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds.parse().expect("a number of seconds"))
}

fn cat(files: &[&str]) -> ExitCode {
    for file in files {
        match fs::read(file) {
            Ok(bytes) => io::stdout().write_all(&bytes).expect("stdout"),
            Err(error) => {
                eprintln!("probe: {file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// What a reader met so far.
#[derive(Default)]
struct Tally {
    reads: u64,
    /// Files of one generation that were not all there, or not of one text.
    torn: u64,
    /// Generations that went away while they were read: the reader was slower than two rotations.
    lost: u64,
    failed: u64,
}

/// What one look at a volume found.
enum Look {
    Whole(Vec<u8>),
    Torn,
    Lost,
    Failed(io::Error),
}

/// A generation is entered by one resolution of `..data`, as a careful application does; all its files must then hold
/// the same text.
fn same(dir: &str, files: usize, deadline: Instant) -> ExitCode {
    let (mut tally, mut last, mut lost_in_a_row) = (Tally::default(), Vec::new(), 0);
    let mut reported = Instant::now();
    while Instant::now() < deadline {
        let mut look = look(dir, files);
        lost_in_a_row = if matches!(look, Look::Lost) { lost_in_a_row + 1 } else { 0 };
        if lost_in_a_row > 100 {
            look = Look::Failed(io::Error::other("one generation after the other is gone"));
        }
        match look {
            Look::Whole(text) => {
                tally.reads += 1;
                if text != last || reported.elapsed() > REPORT {
                    (last, reported) = (text, Instant::now());
                    report(&tally, &last);
                }
            }
            Look::Torn => tally.torn += 1,
            Look::Lost => tally.lost += 1,
            Look::Failed(error) => {
                eprintln!("probe: {error}");
                tally.failed += 1;
            }
        }
    }
    report(&tally, &last);
    if tally.torn + tally.failed == 0 && tally.reads > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(Tally { reads, torn, lost, failed }: &Tally, last: &[u8]) {
    let last = String::from_utf8_lossy(last);
    println!("reads={reads} torn={torn} lost={lost} failed={failed} last={}", last.trim_end());
}

fn look(dir: &str, files: usize) -> Look {
    let data = format!("{dir}/..data");
    let entered = match fs::File::open(&data) {
        Ok(entered) => entered,
        // The link was read, and what it led to was gone: two rotations in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&data).is_ok() => {
            return Look::Lost;
        }
        Err(error) => return Look::Failed(error),
    };
    let texts = texts(&entered);
    let whole = texts.as_ref().is_ok_and(|texts| texts.len() == files);
    if !whole && !is_served(&entered, &data) {
        return Look::Lost;
    }
    match texts {
        Ok(mut texts) if whole && texts.windows(2).all(|pair| pair[0] == pair[1]) => {
            texts.pop().map_or(Look::Torn, Look::Whole)
        }
        Ok(_) => Look::Torn,
        Err(error) => Look::Failed(error),
    }
}

fn texts(entered: &fs::File) -> io::Result<Vec<Vec<u8>>> {
    let here = format!("/proc/self/fd/{}", entered.as_raw_fd());
    let mut texts = Vec::new();
    for entry in fs::read_dir(&here)? {
        let name = entry?.file_name();
        // dso's own marker is not of the set.
        if !name.as_encoded_bytes().starts_with(b"..") {
            texts.push(fs::read(format!("{here}/{}", name.to_string_lossy()))?);
        }
    }
    Ok(texts)
}

/// Whether the generation that was entered is still the one that `..data` leads to.
fn is_served(entered: &fs::File, data: &str) -> bool {
    let served = fs::metadata(data).map(|meta| (meta.dev(), meta.ino()));
    let own = entered.metadata().map(|meta| (meta.dev(), meta.ino()));
    matches!((served, own), (Ok(served), Ok(own)) if served == own)
}

fn watch(file: &str, deadline: Instant) -> ExitCode {
    let (mut last, mut failed) = (None, false);
    while Instant::now() < deadline {
        match fs::read(file) {
            Ok(bytes) if last.as_ref() != Some(&bytes) => {
                println!("{}", String::from_utf8_lossy(&bytes).trim_end());
                last = Some(bytes);
            }
            Ok(_) => {}
            Err(error) => {
                println!("failed {error}");
                failed = true;
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
