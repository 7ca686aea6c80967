# The gateway, which is what a build without --target makes, the dummy upstream, and the tests of a running stack.
ARG GO_IMAGE=golang:1.26.8-alpine
ARG TRAEFIK_IMAGE=traefik:v3.7.9

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS go
ENV CGO_ENABLED=0 GOTOOLCHAIN=local

FROM go AS bundle-builder
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download github.com/gomodule/redigo
COPY . .
ARG VERSION=dev
RUN go run ./bundle -version "$VERSION" /out

FROM go AS upstream-builder
ARG TARGETOS TARGETARCH
WORKDIR /src/upstream
COPY upstream/go.mod upstream/go.sum ./
RUN go mod download github.com/coder/websocket
COPY upstream/ ./
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags='-s -w' -o /out/upstream .

FROM go AS check-builder
ARG TARGETOS TARGETARCH
WORKDIR /src/deploy/check
COPY go.mod go.sum /src/
COPY deploy/check/go.mod deploy/check/go.sum ./
RUN go mod download
COPY . /src/
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags='-s -w' -o /out/check .

FROM go AS tests-builder
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
COPY deploy/tests/ deploy/tests/
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags='-s -w' -o /out/tests ./deploy/tests

FROM scratch AS upstream
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="resilience-upstream" \
      org.opencontainers.image.description="The dummy upstream of the Resilience gateway." \
      org.opencontainers.image.source="https://github.com/resilient-gateway/resilience" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=upstream-builder /out/upstream /upstream
USER 65532:65532
EXPOSE 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["/upstream", "-health"]
ENTRYPOINT ["/upstream"]

FROM scratch AS tests
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="resilience-tests" \
      org.opencontainers.image.description="Tries a running Resilience stack from inside." \
      org.opencontainers.image.source="https://github.com/resilient-gateway/resilience" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=tests-builder /out/tests /tests
USER 65532:65532
ENTRYPOINT ["/tests"]

FROM ${TRAEFIK_IMAGE} AS gateway
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="resilience-gateway" \
      org.opencontainers.image.description="Traefik with a rate limiter and a circuit breaker shared through Redis." \
      org.opencontainers.image.source="https://github.com/resilient-gateway/resilience" \
      org.opencontainers.image.documentation="https://github.com/resilient-gateway/resilience#readme" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Traefik looks for ./plugins-local, so the working directory is part of what makes the plugin load.
WORKDIR /
COPY --from=bundle-builder /out/plugins-local /plugins-local
COPY --from=check-builder /out/check /check
COPY traefik/traefik.yml /etc/traefik/traefik.yml
COPY dynamic/ /etc/traefik/dynamic/
# An interpreted request makes much garbage: let more of it gather, as long as there is memory.
ENV GOGC=400 GOMEMLIMIT=512MiB
USER 65532:65532
EXPOSE 5000 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["traefik", "healthcheck"]
# Settings that are wrong end the container with their names. Traefik would leave out the routes that use them, and be healthy.
ENTRYPOINT ["/check", "exec", "/entrypoint.sh"]
CMD ["traefik"]
