"""The gauges of devices, their keys and their certificates."""

from typing import Final

from django.conf import settings

from devices.admission import IS_ADMITTED
from hotswap.common.metrics import Gauge

VERSIONS_ACTIVE = Gauge(
    "hotswap_firmware_versions_active",
    "firmware.versions.active",
    "Versions that devices run, by what they say",
    {"model": ()},
    f"""
    SELECT m.name, count(*) FROM (
        SELECT DISTINCT d.model_id, d.firmware_version FROM devices_device d
        WHERE {IS_ADMITTED} AND d.firmware_version <> ''
    ) AS running
    JOIN firmware_devicemodel m ON m.id = running.model_id
    GROUP BY 1
    """,  # noqa: S608
)
KEYS_EXPIRING = Gauge(
    "hotswap_device_keys_expiring",
    "",
    "Current keys of devices that have expired or soon will, by which of both",
    {"state": ("soon", "expired")},
    f"""
    SELECT CASE WHEN k.expires_at <= now() THEN 'expired' ELSE 'soon' END, count(*)
    FROM devices_devicekey k JOIN devices_device d ON d.id = k.device_id
    WHERE k.superseded_at IS NULL AND {IS_ADMITTED}
      AND k.expires_at <= now() + interval
          '{int(settings.DEVICE_KEY_WARNING.total_seconds())} seconds'
    GROUP BY 1
    """,  # noqa: S608
)
CERTIFICATES_EXPIRING = Gauge(
    "hotswap_device_certificates_expiring",
    "",
    "Devices whose last client certificate has expired or soon will, by which of both",
    {"state": ("soon", "expired")},
    f"""
    SELECT CASE WHEN last <= now() THEN 'expired' ELSE 'soon' END, count(*)
    FROM (
        SELECT max(c.not_after) AS last
        FROM devices_devicecertificate c JOIN devices_device d ON d.id = c.device_id
        WHERE {IS_ADMITTED} GROUP BY c.device_id
    ) AS of_device
    WHERE last <= now() + interval
          '{int(settings.DEVICE_KEY_WARNING.total_seconds())} seconds'
    GROUP BY 1
    """,  # noqa: S608
)
GAUGES: Final = (VERSIONS_ACTIVE, KEYS_EXPIRING, CERTIFICATES_EXPIRING)
