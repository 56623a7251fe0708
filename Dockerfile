# The image of web, worker, beat and prepare. `docker build --build-arg EXTRAS=gateway .`
# adds optional parts.
FROM python:3.13.5-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH

COPY requirements.lock .
RUN pip install --no-deps --require-hashes -r requirements.lock

COPY . .
RUN pip install --no-deps --no-build-isolation -e .
# Optional parts by name, such as `gateway`; they stand on what is installed above.
ARG EXTRAS=
RUN if [ -n "$EXTRAS" ]; then pip install --no-build-isolation -e ".[$EXTRAS]"; fi
# What is in the image, for those who look for vulnerable parts of it.
RUN python -m venv /tools \
    && /tools/bin/pip install cyclonedx-bom==7.0.0 \
    && /tools/bin/cyclonedx-py environment --output-file /app/sbom.cdx.json /venv/bin/python
# Modules are compiled once, not at each start of a read-only container.
RUN python -m compileall -q /app /venv
# Static files under hashed names, compressed, for browsers to keep.
RUN HOTSWAP_DATA_DIR=/tmp/build DJANGO_SETTINGS_MODULE=hotswap.settings.local \
    python -m hotswap.stack.static && rm -r /tmp/build


FROM python:3.13.5-slim-bookworm

ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="HotSwap" \
    org.opencontainers.image.description="Update server for fleets of IoT devices" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.licenses="Apache-2.0"

ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=hotswap.settings.production \
    HOTSWAP_DATA_DIR=/data
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app
RUN mkdir /data && chown 10001:10001 /data

USER 10001:10001
VOLUME /data
EXPOSE 8000 9464
HEALTHCHECK --interval=10s --timeout=6s --retries=6 --start-period=60s \
    CMD ["python", "-m", "hotswap.stack.healthcheck", "http://127.0.0.1:8000/health/ready"]
CMD ["python", "-m", "hotswap.stack.guard", "--health", "http://127.0.0.1:8000/health", "--", "python", "-m", "granian", "hotswap.wsgi:application", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--no-ws", "--http", "1", "--workers", "2", "--respawn-failed-workers", "--blocking-threads", "16", "--workers-kill-timeout", "5", "--log-level", "warning", "--log-config", "hotswap/stack/granian-log.json", "--http1-buffer-size", "65536", "--backlog", "4096", "--backpressure", "4096"]
