# syntax=docker/dockerfile:1
# Builds the program, and puts it alone into an image with glibc and nothing else: no shell, no package manager.
#   docker build --build-arg BUILD_ID="$(git rev-parse --short=12 HEAD)" --tag posthaste .

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# The image has this toolchain; without the variable rustup would fetch the one of rust-toolchain.toml again, with its tools.
ENV RUSTUP_TOOLCHAIN=1.95.0 SQLX_OFFLINE=true
ARG BUILD_ID=
# What the slim image leaves out and the allocator's C code is built with.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package cli && install -m 755 target/release/posthaste /posthaste

FROM gcr.io/distroless/cc-debian12
COPY --from=build /posthaste /usr/local/bin/posthaste
# A user that exists nowhere else.
USER 10001:10001
ENV POSTHASTE_LISTEN=0.0.0.0:8071
EXPOSE 8071
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/posthaste", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/posthaste"]
CMD ["serve"]
