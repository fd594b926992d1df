# Builds the program, and puts it into an image with the libraries that it is linked with, the authorities that TLS trusts, and
# nothing else: no shell, no package manager.
#   docker build --build-arg BUILD_ID="$(git rev-parse --short=12 HEAD)" --tag posthaste .

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# The image has this toolchain; without the variable rustup would fetch the one of rust-toolchain.toml again, with its tools.
ENV RUSTUP_TOOLCHAIN=1.95.0 SQLX_OFFLINE=true
ARG BUILD_ID=
# What the slim image leaves out: the allocator's C code is built with the one, and the other is copied.
RUN apt-get update && apt-get install --yes --no-install-recommends make ca-certificates && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package cli && install -D -m 755 target/release/posthaste /image/usr/local/bin/posthaste
RUN ldd /image/usr/local/bin/posthaste | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory /image \
    && cp --dereference --parents --target-directory /image /etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=build /image /
# A user that exists nowhere else.
USER 10001:10001
ENV POSTHASTE_LISTEN=0.0.0.0:8071
EXPOSE 8071
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/posthaste", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/posthaste"]
CMD ["serve"]
