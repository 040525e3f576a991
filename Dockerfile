# The engine in a small image, run by nobody in particular.
#
#   docker build -t engine .
#   docker run --rm --read-only -p 5000:5000 -e ENGINE_DATABASE_URL=postgres://... engine
#
# ops/compose.yaml runs it with a PostgreSQL and a Redis. Both base images are Debian 12:
# what is built against its C library runs on it.
ARG BUILD_BASE=docker.io/library/rust:1.95.0-slim-bookworm
ARG RUN_BASE=docker.io/library/debian:12.12-slim

FROM ${BUILD_BASE} AS build
WORKDIR /build
# Dependencies first, from the manifests alone: this layer is built again only when one
# of them changes, not with every line of the engine. The empty programs stand in for
# ours; loadtest is here because the workspace names it.
COPY Cargo.toml Cargo.lock ./
COPY engine/Cargo.toml engine/
COPY loadtest/Cargo.toml loadtest/
COPY engine/pgtls/Cargo.toml engine/pgtls/
RUN mkdir -p engine/src loadtest/src engine/pgtls/src \
    && echo 'fn main() {}' > engine/src/main.rs \
    && cp engine/src/main.rs loadtest/src/main.rs \
    && touch engine/src/lib.rs engine/pgtls/src/lib.rs \
    && cargo build --release --locked --package engine
COPY sql sql
COPY engine/build.rs engine/
COPY engine/src engine/src
COPY engine/pgtls/src engine/pgtls/src
# What `engine_build_info` says: docker build --build-arg ENGINE_BUILD_COMMIT=$(git rev-parse HEAD).
ARG ENGINE_BUILD_COMMIT
# Copied files keep their times, which may be older than the stand-ins' build. Debug
# sections go, symbol names stay: a backtrace still names its functions.
RUN touch engine/src/main.rs engine/src/lib.rs engine/pgtls/src/lib.rs \
    && cargo build --release --locked --package engine \
    && strip --strip-debug -o /build/engine-stripped target/release/engine

# The load generator, in an image of its own for the Job of k8s/:
#
#   docker build --target loadtest -t engine-loadtest .
FROM build AS build-loadtest
COPY loadtest/src loadtest/src
RUN touch loadtest/src/main.rs \
    && cargo build --release --locked --package loadtest \
    && strip --strip-debug -o /build/loadtest-stripped target/release/loadtest

FROM ${RUN_BASE} AS loadtest
LABEL org.opencontainers.image.title="engine-loadtest" \
      org.opencontainers.image.description="The load generator of the transaction engine: one run, or a worker of a shared one" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build-loadtest --chmod=0555 /build/loadtest-stripped /usr/local/bin/loadtest
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/loadtest"]
CMD ["--help"]

FROM ${RUN_BASE}
LABEL org.opencontainers.image.title="engine" \
      org.opencontainers.image.description="A transaction engine: transfers over HTTP, committed in batches to PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0"
# Whom to trust when a URL asks for TLS and names no file of authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chmod=0555 /build/engine-stripped /usr/local/bin/engine
# Without a name in /etc/passwd: it owns nothing, and the engine writes no file.
USER 10001:10001
# Everything else keeps its default: `engine serve --help`.
ENV ENGINE_LISTEN=0.0.0.0:5000 \
    ENGINE_ADMIN_LISTEN=0.0.0.0:9464 \
    ENGINE_LOG_FORMAT=json
EXPOSE 5000 9464
# As `engine serve` stops: what was accepted is answered. Give it --shutdown-grace plus
# a little: docker stop --time 35.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/engine", "health"]
ENTRYPOINT ["/usr/local/bin/engine"]
CMD ["serve"]
