"""The keys by which devices are ordered after what they run.

Rules:
- Of a device whose running image is known by its checksum it is the key of that image,
  whatever the device calls it. Else it is the key of what it says, read by the version
  scheme of its model. What is no version of that scheme has the empty key.
- The database makes the key whenever one of these facts of a device changes (trigger
  `device_version_key`), so that no writer can forget it. What changes about a model is
  taken to its devices here.
- Who gives a device another image or model shares the order of that model, and takes
  it before the row of the device. Who changes the order has it alone. So none of them
  misses what the other does.
"""

from collections.abc import Iterable
from uuid import UUID

from hotswap.common import locks
from hotswap.common.rows import prepared_cursor

SHARE_ORDER = (
    f"pg_advisory_xact_lock_shared({locks.VERSION_ORDER}, hashtext(%(model)s::text))"
)
# One after the other by id, so that no two wait for each other.
SHARE_ORDERS = f"""
    SELECT pg_advisory_xact_lock_shared({locks.VERSION_ORDER}, hashtext(id::text))
    FROM (SELECT id FROM firmware_devicemodel WHERE name = ANY(%(names)s)
          ORDER BY id) AS models
"""  # noqa: S608
HOLD_ORDER = (
    f"SELECT pg_advisory_xact_lock({locks.VERSION_ORDER}, hashtext(%(model)s::text))"
)
# In the order of their ids, and only those that it changes. The trigger does the rest.
REFRESH = """
    UPDATE devices_device SET version_key = '' WHERE id IN (
        SELECT id FROM devices_device
        WHERE model_id = %(model)s
          AND (%(checksum)s = '' OR firmware_checksum = %(checksum)s)
          AND version_key <> hotswap_device_version_key(
              model_id, firmware_version, firmware_checksum)
        ORDER BY id FOR NO KEY UPDATE
    )
"""


def share_version_orders(model_names: Iterable[str | None]) -> None:
    """Keep the order of the models' versions as it is to the end of the transaction."""
    names = [name for name in model_names if name is not None]
    with prepared_cursor() as cursor:
        cursor.execute(SHARE_ORDERS, {"names": names})


def refresh_version_keys(*, model_id: UUID, checksum: str = "") -> None:
    """Take a changed order of a model's versions to its devices.

    Call it in the transaction of the change.

    Args:
        checksum: of the image that is new to the server; empty, if any device of the
            model may be concerned.
    """
    with prepared_cursor() as cursor:
        cursor.execute(HOLD_ORDER, {"model": model_id})
        cursor.execute(REFRESH, {"model": model_id, "checksum": checksum})
