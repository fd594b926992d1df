//! The program `posthaste`.

use std::process::ExitCode;

/// A request allocates in one thread what another frees; the system's allocator spends about a tenth of the server's time
/// on that, this one about half as much (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
