//! A real terminal program, xterm, on an X server without a screen; and what is seen of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::support::{SOON, until, wait_for};

const BACKGROUND: &str = "#1e1e2e";
const FOREGROUND: &str = "#cdd6f4";

/// The X server; it ends with this.
pub struct Screen {
    server: Child,
    display: String,
}

struct Xterm(Child);

// === impl Screen ===

impl Screen {
    pub fn start() -> Self {
        let words = ["-displayfd", "1", "-screen", "0", "1400x900x24", "-nolisten", "tcp"];
        let server = Command::new("Xvfb").args(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut server = server.expect("Xvfb (Debian: apt-get install xvfb xterm imagemagick fonts-dejavu-core)");
        let mut number = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut number).expect("the display's number");
        Self { server, display: format!(":{}", number.trim()) }
    }

    /// Types `docker` with these words in a terminal, and keeps what is seen when it has ended. `like` gives the environment.
    pub fn picture(&self, like: &Command, words: &[&str], file: &Path) {
        let ended = file.with_extension("ended");
        let line = format!("docker {}", words.join(" "));
        let script = format!("printf '$ {line}\\n'; {line}; echo $? >'{}'; exec sleep 600", ended.display());
        let mut xterm = Command::new("xterm");
        xterm.args(["-fa", "DejaVu Sans Mono", "-fs", "11", "-geometry", "132x40+0+0", "-b", "12", "+cm", "-uc"]);
        xterm.args(["-bg", BACKGROUND, "-fg", FOREGROUND, "-cr", BACKGROUND, "-e", "sh", "-c", &script]);
        let environment = like.get_envs().filter_map(|(name, value)| Some((name, value?)));
        xterm.envs(environment).env_remove("NO_COLOR").env("DISPLAY", &self.display);
        let _xterm = Xterm(xterm.spawn().expect("xterm"));
        wait_for("the command to end", 2 * SOON, || ended.exists());
        // What it wrote last may not be drawn yet.
        let mut before = Vec::new();
        let shown = until("the terminal to have drawn it", SOON, || {
            let shown = self.look();
            let same = (shown == before && !shown.is_empty()).then(|| shown.clone());
            before = shown;
            same
        });
        let code = fs::read_to_string(&ended).expect("its exit code");
        fs::remove_file(&ended).expect("its exit code");
        assert_eq!(code.trim(), "0", "`{line}`");
        fs::write(file, shown).expect("docs/pictures");
    }

    /// The text that is seen, with a margin, as PNG.
    fn look(&self) -> Vec<u8> {
        let look = format!(
            "import -display {} -window root png:- | convert png:- -trim +repage -trim +repage -bordercolor '{BACKGROUND}' \
             -border 14 -strip -define png:exclude-chunks=date,time png:-",
            self.display
        );
        let shown = Command::new("sh").args(["-c", &look]).stderr(Stdio::null()).output().expect("ImageMagick");
        shown.stdout
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Xterm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
