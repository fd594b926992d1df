//! Which settings each command shows in its help, and which variables are none.

use clap::{Arg, Command, CommandFactory as _, Id};

/// The title of the settings in every help.
const HEADING: &str = "Settings (a flag wins over its variable)";

/// Makes every setting a flag of every command, shows those that a command uses in its help, and keeps values of the
/// environment, secrets among them, out of it.
pub(crate) fn with_settings(command: Command) -> Command {
    let settings: Vec<_> = names(&command).map(|(id, _)| id).collect();
    let command = settings.iter().fold(command, |command, id| command.mut_arg(id, as_setting));
    let arguments: Vec<_> = command.get_arguments().filter(|arg| settings.contains(arg.get_id())).cloned().collect();
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        // What it does not use it takes all the same, so that a flag may stand on either side of the command's name.
        let unused = arguments.iter().filter(|arg| !is_used_by(&name, arg.get_id().as_str()));
        subcommand.args(unused.map(|arg| arg.clone().hide(true)))
    })
}

fn as_setting(arg: Arg) -> Arg {
    arg.global(true).hide_env_values(true).help_heading(HEADING)
}

/// Whether a command reads this setting. A new setting counts as one of the servers'.
fn is_used_by(command: &str, setting: &str) -> bool {
    match command {
        "dev" => true,
        "serve" => setting != "data_dir",
        // Which addresses may never be called is asked when an endpoint is written, too.
        "api" => {
            setting == "egress_allow"
                || (!setting.starts_with("egress_")
                    && !matches!(setting, "data_dir" | "retention" | "retry_schedule" | "signature_headers"))
        }
        "worker" => !matches!(
            setting,
            "data_dir" | "endpoint_https_only" | "idempotency_wait" | "jwt_secret" | "max_body_memory" | "max_payload" | "public_url"
        ),
        "migrate" => matches!(setting, "database_url" | "main_secret" | "log" | "log_format"),
        "reseal" => matches!(setting, "database_url" | "main_secret" | "main_secret_previous" | "log" | "log_format"),
        "key" => matches!(setting, "database_url" | "main_secret" | "main_secret_previous" | "log" | "log_format"),
        "token" => matches!(setting, "jwt_secret" | "data_dir"),
        "bench" => setting == "database_url",
        "healthcheck" => matches!(setting, "listen" | "data_dir"),
        _ => false,
    }
}

/// The settings' ids and variables.
pub(super) fn names(command: &Command) -> impl Iterator<Item = (Id, String)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_id().clone(), arg.get_env()?.to_string_lossy().into_owned())));
    named.collect::<Vec<_>>().into_iter()
}

/// One sentence for each `POSTHASTE_*` variable that nobody reads, with the name that was probably meant.
pub(crate) fn unknown_variables() -> Vec<String> {
    let known: Vec<_> = names(&crate::Cli::command()).map(|(_, variable)| variable).collect();
    let set = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    unknown(&known, set)
}

/// The settings that this process was given by its environment, known or not.
pub(crate) fn set_variables() -> impl Iterator<Item = String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).filter(|name| name.starts_with("POSTHASTE_"))
}

pub(super) fn unknown(known: &[String], set: impl Iterator<Item = String>) -> Vec<String> {
    let strangers = set.filter(|name| name.starts_with("POSTHASTE_") && !known.contains(name));
    let nearest = |name: &str| known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name)).cloned().unwrap_or_default();
    strangers.map(|name| format!("{name} is not a setting and has no effect: did you mean {}?", nearest(&name))).collect()
}
