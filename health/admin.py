"""What health shows on the page of a device."""

from devices.models import Device
from health.console.device import (
    history_context,
    latest_context,
    newest_events,
    warnings_context,
)
from hotswap.common.console.panels import Panel, register_log, register_panel

for panel in (
    Panel("banners", "console/device_health_banners.html", warnings_context),
    Panel("firmware", "console/device_health.html", latest_context),
    Panel("health", "console/device_history.html", history_context),
):
    register_panel(Device, panel)
register_log(Device, newest_events)
