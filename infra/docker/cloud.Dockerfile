# The cloud image: Prefect server, worker and registration, with everything that trains and judges.
#
# Build from the repository root. The wheel is built first, so that nothing unpinned is installed in here:
#   pip wheel --no-deps --wheel-dir dist .
#   docker build -f infra/docker/cloud.Dockerfile -t edgeloop-cloud:0.1.0 .
FROM python:3.11-slim AS build
ARG VERSION=0.1.0
RUN python -m venv /opt/edgeloop
ENV PATH=/opt/edgeloop/bin:$PATH
COPY requirements/all.txt /build/
RUN pip install --no-cache-dir --require-hashes -r /build/all.txt
COPY dist/edgeloop-${VERSION}-py3-none-any.whl /build/
RUN pip install --no-cache-dir --no-deps --no-index /build/edgeloop-${VERSION}-py3-none-any.whl

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/edgeloop edgeloop \
 && install -d -o edgeloop -g edgeloop /var/lib/edgeloop /srv/trust
COPY --from=build /opt/edgeloop /opt/edgeloop
WORKDIR /srv/edgeloop
COPY flows flows
COPY tasks tasks
COPY deployments deployments
COPY data data
# Flows are run by module path, so the rooms have to be importable from any working directory.
ENV PATH=/opt/edgeloop/bin:$PATH \
    PYTHONPATH=/srv/edgeloop \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/edgeloop \
    EDGELOOP_HOME=/var/lib/edgeloop \
    EDGELOOP_ROOMS=/srv/edgeloop \
    PREFECT_HOME=/var/lib/edgeloop/prefect \
    PREFECT_UI_STATIC_DIRECTORY=/tmp/prefect-ui \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false
USER 10001:10001
CMD ["prefect", "worker", "start", "--pool", "edgeloop", "--type", "process"]
