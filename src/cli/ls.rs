//! `docker dso ls`

use super::{
    Failure,
    format::Format,
    print,
    session::Session,
    volume::{COLUMNS, FIELDS, Row},
};
use clap::Args;
use std::time::SystemTime;

#[derive(Args)]
pub struct Arguments {
    /// How to write them: `table`, `json` (one object a line), or a template such as '{{.Name}}\t{{.State}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    let format = Format::parse(&arguments.format, FIELDS, COLUMNS)?;
    session.block_on(async {
        let mut engine = session.engine().await?;
        let plugins = engine.enabled(session.plugin.as_deref()).await?;
        let (names, warnings) = engine.names(&plugins).await?;
        let lines = if arguments.quiet {
            names
        } else {
            let mut rows = Vec::with_capacity(names.len());
            for name in names {
                // It may have been removed since.
                if let Some(volume) = engine.look(&name).await? {
                    rows.push(Row { volume, now: SystemTime::now() });
                }
            }
            format.lines(&rows, session.style)
        };
        if !lines.is_empty() {
            print(&lines.join("\n"))?;
        }
        if warnings.is_empty() {
            Ok(())
        } else {
            Err(Failure::Failed(format!("the list is not whole: {}", warnings.join("; "))))
        }
    })
}
