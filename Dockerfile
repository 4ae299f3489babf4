# One image for every process: `docker run dispatcher worker`, `… api`, `… scheduler`, `… migrate`; and for commands:
# `docker run -e DISPATCHER_API_URL=… -e DISPATCHER_API_KEY=… dispatcher deliveries list`.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY scripts/locked.py scripts/
# Wheels only, by hash, from the lock file. What builds our own wheel stays behind in this stage.
RUN python scripts/locked.py >runtime.lock \
    && python scripts/locked.py hatchling >build.lock \
    && python -m venv /opt/dispatcher \
    && /opt/dispatcher/bin/pip install --require-hashes --only-binary :all: --no-deps -r runtime.lock \
    && pip install --require-hashes --only-binary :all: --no-deps -r build.lock
COPY dispatcher dispatcher
COPY workers workers
COPY schedules schedules
COPY profiles profiles
RUN python -m hatchling build -t wheel -d dist \
    && /opt/dispatcher/bin/pip install --no-deps dist/*.whl \
    && /opt/dispatcher/bin/python -m compileall -q /opt/dispatcher/lib

FROM python:3.13-slim-bookworm
RUN groupadd --system --gid 10001 dispatcher \
    && useradd --system --uid 10001 --gid dispatcher --no-create-home --shell /usr/sbin/nologin dispatcher
COPY --from=build /opt/dispatcher /opt/dispatcher
# PYTHONDONTWRITEBYTECODE: the root file system is read-only where docker-compose.yml says so.
ENV PATH=/opt/dispatcher/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /
EXPOSE 8420
STOPSIGNAL SIGTERM
ENTRYPOINT ["dispatcher"]
CMD ["--help"]
