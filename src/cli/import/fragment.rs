//! What a Compose file needs to have the values of a file of variables.

use super::{rewrite::FOLDER, store::Plan};

pub fn of_variables(names: &[&str], plan: &Plan, project: &str) -> String {
    let volume = format!("{project}-secrets");
    let mut out = vec![
        "services:".into(),
        "  app:                        # the service that needs them".into(),
        "    environment:".into(),
        "      # The image has to know NAME_FILE; many do. For one that does not, see below.".into(),
    ];
    out.extend(names.iter().map(|name| format!("      {name}_FILE: {FOLDER}/{name}")));
    out.extend(["    volumes:".into(), format!("      - {volume}:{FOLDER}:ro"), String::new(), "volumes:".into()]);
    out.extend([format!("  {volume}:"), "    driver: dso".into(), "    driver_opts:".into()]);
    let reference = |name: &str| plan.reference("app", name);
    out.extend(names.iter().map(|name| format!("      file.{name}: {}", reference(name))));
    out.push(
        "      # For a program that reads a file of variables: one at /run/secrets/env, in place of the lines above."
            .into(),
    );
    out.push("      # template.env: |".into());
    out.extend(names.iter().map(|name| format!("      #   {name}={{{{ secret(\"{}\") }}}}", reference(name))));
    out.join("\n")
}
