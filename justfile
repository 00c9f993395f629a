# Lists what can be done.
default:
    @just --list

# Format, lint, documentation, layers, licences.
check:
    cargo fmt --check
    scripts/check-text
    cargo clippy --locked --all-targets -- -D warnings
    cargo test --locked --test layers
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
    cargo deny check licenses bans sources

# Everything that has to hold before a change lands.
test:
    scripts/test

# The simulations, with so many seeds.
sim seeds="1000":
    P2PFS_SEEDS={{seeds}} cargo test --locked --release --test simulation --test swarm_simulation -- --nocapture

# Throughput.
bench:
    cargo bench --locked

# Beside scp, rsync, curl, aria2 and plain TCP, on this machine: `just compare --help`.
compare *arguments:
    benches/compare/run {{arguments}}

# A tracker and two peers on this machine.
demo:
    cargo run --locked --release -- demo
