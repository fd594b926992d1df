//! The shipped program, started and killed by the tests as a real process.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
