# syntax=docker/dockerfile:1
# docker build -t levada .

FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
# librdkafka and OpenSSL are compiled here: the image has cc, make and perl.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin levada \
    && cp target/release/levada /usr/local/bin/levada

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home levada \
    && install -d -o levada -g levada /var/lib/levada /etc/levada/manifests
COPY --from=build /usr/local/bin/levada /usr/local/bin/levada
USER levada
# The admin port is closed to other machines unless LEVADA_ADMIN_TOKEN or LEVADA_ADMIN_OPEN is set.
ENV LEVADA_LISTEN=0.0.0.0:8080 \
    LEVADA_DATA_DIR=/var/lib/levada \
    LEVADA_MANIFESTS=/etc/levada/manifests
VOLUME /var/lib/levada
EXPOSE 8080 8081
ENTRYPOINT ["levada"]
CMD ["serve"]
