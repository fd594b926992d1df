# Every recipe is one plain command: `just` is a convenience, not a requirement.

# Run everything on this machine: API, worker, a private Postgres, a sample application
dev:
    cargo run --release -- dev

# Run all tests
test:
    cargo test --workspace

# Format, lint, and check dependencies
check:
    cargo fmt --check && cargo clippy --workspace --all-targets -- -D warnings && cargo deny check

# Record the queries anew after a change to one, or to the schema
sqlx:
    scripts/sqlx-cache refresh

# Write openapi.yaml anew after a change to a route
openapi:
    cargo run --quiet --bin posthaste -- openapi > openapi.yaml

# Begin a migration
migration NAME:
    scripts/new-migration {{NAME}}

# Open psql on the database of a running `just dev`
db:
    psql "$(cat posthaste-data/database-url)"

# Break each invariant in a scratch copy, and see its test go red
breaks:
    bash tests/breaks/run

# Kill, freeze and cut off three servers and crash their Postgres for so many minutes, and hold every client's word against the rows
crashes MINUTES="10":
    POSTHASTE_TEST_MINUTES={{MINUTES}} cargo test --package tests --test crashes storm

# Put the receivers in Python and Node through the scenarios that `just test` runs with the one in Rust
receivers:
    bash tests/receivers/run

# Let the Python and JavaScript SDKs of the registries tell the README's story to a server made for it
sdks:
    bash tests/sdks/run

# Run the statements of the claim in every order, and wrong claims until they go wrong
model:
    cargo test --package tests --test model

# Send hostile requests to every operation of a server made for it
fuzz:
    bash tests/fuzz/run

# Measure the release on this machine, all scenarios (15 minutes); `cargo run --release -- bench clean` is one of them
bench:
    cargo run --release -- bench

# Everything that continuous integration runs
ci:
    bash .ci/run
