"""Registers the models of devices with their pages in the console."""

from django.contrib import admin

from devices.console.pages.device import DeviceAdmin
from devices.console.pages.device_group import DeviceGroupAdmin
from devices.console.pages.device_import import DeviceImportAdmin
from devices.console.pages.enrolment_request import EnrolmentAdmin
from devices.console.pages.enrolment_token import EnrolmentTokenAdmin
from devices.console.timeline import audited
from devices.models import (
    Device,
    DeviceGroup,
    DeviceImport,
    EnrolmentRequest,
    EnrolmentToken,
)
from hotswap.common.console.panels import register_log

admin.site.register(Device, DeviceAdmin)
admin.site.register(DeviceGroup, DeviceGroupAdmin)
admin.site.register(EnrolmentRequest, EnrolmentAdmin)
admin.site.register(EnrolmentToken, EnrolmentTokenAdmin)
admin.site.register(DeviceImport, DeviceImportAdmin)
register_log(Device, audited)
