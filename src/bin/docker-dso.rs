//! `docker dso`: the CLI plugin of Docker that speaks to dso.

use std::process::ExitCode;

fn main() -> ExitCode {
    // What cannot be done is not told: it would stand before every answer, and nobody at a shell can mend it.
    let _ = dso::memory::protect();
    dso::cli::run(std::env::args_os().skip(1))
}
