# The node image: the base install of edgeloop and nothing that only the cloud needs.
#
# Build from the repository root. The wheel is built first, so that nothing unpinned is installed in here:
#   pip wheel --no-deps --wheel-dir dist .
#   docker build -f infra/docker/node.Dockerfile -t edgeloop-node:0.1.0 .
FROM python:3.11-slim AS build
ARG VERSION=0.1.0
RUN python -m venv /opt/edgeloop
ENV PATH=/opt/edgeloop/bin:$PATH
COPY requirements/node.txt /build/
RUN pip install --no-cache-dir --require-hashes -r /build/node.txt
COPY dist/edgeloop-${VERSION}-py3-none-any.whl /build/
RUN pip install --no-cache-dir --no-deps --no-index /build/edgeloop-${VERSION}-py3-none-any.whl

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/edgeloop edgeloop \
 && install -d -o edgeloop -g edgeloop /var/lib/edgeloop
COPY --from=build /opt/edgeloop /opt/edgeloop
WORKDIR /var/lib/edgeloop
ENV PATH=/opt/edgeloop/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/edgeloop \
    EDGELOOP_HOME=/var/lib/edgeloop
USER 10001:10001
EXPOSE 8081
CMD ["edgeloop", "node", "--config", "/etc/edgeloop/node.yaml"]
