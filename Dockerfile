FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements.lock .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
    && useradd --system --home-dir /data hotswap \
    && mkdir /data \
    && chown hotswap /data

# Optional parts by name, such as `gateway`; they stand on what is installed above.
ARG EXTRAS=
RUN if [ -n "$EXTRAS" ]; then \
    pip install --no-cache-dir --no-build-isolation -e ".[$EXTRAS]"; fi

ENV DJANGO_SETTINGS_MODULE=hotswap.settings.production HOTSWAP_DATA_DIR=/data
USER hotswap
VOLUME /data
EXPOSE 8000
