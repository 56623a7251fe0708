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

ENV DJANGO_SETTINGS_MODULE=hotswap.settings.production HOTSWAP_DATA_DIR=/data
USER hotswap
VOLUME /data
EXPOSE 8000
