//! Notes which test had which operation of the Convoy dialect answered well, for whoever wants to know: the table in
//! `docs/convoy-compatibility.md` says no more than that (`scripts/convoy-table`).

use std::{collections::HashSet, fs::File, io::Write, sync::LazyLock, thread};

use parking_lot::Mutex;

/// A file, and what stands in it already.
type Notes = Mutex<(File, HashSet<String>)>;

/// The file that `POSTHASTE_TEST_OPERATIONS` names, if it does.
static NOTES: LazyLock<Option<Notes>> = LazyLock::new(|| {
    let path = std::env::var_os("POSTHASTE_TEST_OPERATIONS")?;
    let file = File::options().create(true).append(true).open(path).expect("the file can be written");
    Some(Mutex::new((file, HashSet::new())))
});

/// Notes that an operation was answered with a 2xx; a test's thread has the test's name.
pub(crate) fn note(method: &str, template: &str) {
    let (Some(notes), Some(test)) = (&*NOTES, thread::current().name().filter(|name| name.contains("::")).map(str::to_owned)) else {
        return;
    };
    let line = format!("{test}\t{method} {template} 200\n");
    let (file, known) = &mut *notes.lock();
    if known.insert(line.clone()) {
        file.write_all(line.as_bytes()).expect("the file can be written");
    }
}
