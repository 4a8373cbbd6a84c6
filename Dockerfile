# One image for both roles: `chroma-cluster node` and `chroma-cluster lb` (the default command prints the help).
# Targets: `cluster` (the default) and `toxiproxy` (only for the compose file's `chaos` profile).
# Two optional build secrets serve networks with their own package index or certificate authority:
#   --secret id=pip_conf,src=FILE   a pip configuration      --secret id=ca,src=FILE   CA certificates (PEM)

ARG BASE_IMAGE=python:3.11-slim
ARG GO_IMAGE=golang:1.24


FROM ${GO_IMAGE} AS toxiproxy-build
ARG TOXIPROXY_VERSION=v2.12.0
ARG GOPROXY
ARG GOSUMDB
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
 && CGO_ENABLED=0 GOBIN=/out go install "github.com/Shopify/toxiproxy/v2/cmd/server@${TOXIPROXY_VERSION}"

FROM scratch AS toxiproxy
COPY --from=toxiproxy-build /out/server /toxiproxy
COPY tests/containers/toxiproxy.json /toxiproxy.json
USER 10001:10001
EXPOSE 8474
ENTRYPOINT ["/toxiproxy", "-host=0.0.0.0", "-config=/toxiproxy.json"]


FROM ${BASE_IMAGE} AS python
# The official Python images pass the test and skip the step; plain Debian or Ubuntu bases take it.
RUN python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
 || { apt-get update \
   && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
   && rm -rf /var/lib/apt/lists/*; }
ENV PATH=/opt/chroma-cluster/bin:${PATH} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/chroma-cluster


FROM python AS wheel
COPY requirements-tools.txt /tmp/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    pip install --require-hashes --requirement /tmp/requirements-tools.txt
COPY . /src
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheel /src


FROM python AS cluster
COPY requirements.txt /tmp/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    pip install --require-hashes --requirement /tmp/requirements.txt
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-deps --no-index /tmp/wheel/*.whl

# A fixed uid, so that volumes and bind mounts keep their owner over image upgrades.
RUN groupadd --gid 10001 chroma \
 && useradd --uid 10001 --gid chroma --create-home --shell /usr/sbin/nologin chroma \
 && install --directory --owner=chroma --group=chroma --mode=0700 /data
USER 10001:10001
WORKDIR /data
ENV CHROMA_CLUSTER_DATA_DIR=/data \
    CHROMA_CLUSTER_HEALTH_URL=http://127.0.0.1:8001/cluster/status
EXPOSE 8000 8001 9001

# Both roles answer at the URL with JSON that says `healthy`; a start that replays a long log may take its time.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import json, os, sys, urllib.request as u; sys.exit(not json.load(u.urlopen(os.environ['CHROMA_CLUSTER_HEALTH_URL'], timeout=4)).get('healthy', False))"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["chroma-cluster"]
CMD ["--help"]
