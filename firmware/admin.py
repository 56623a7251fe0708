"""Registers the models of firmware with their pages in the console."""

from django.contrib import admin

from firmware.console.pages.approval_request import ApprovalAdmin
from firmware.console.pages.device_model import DeviceModelAdmin
from firmware.console.pages.firmware import FirmwareAdmin
from firmware.console.pages.signing_key import SigningKeyAdmin
from firmware.console.pages.storage_key import StorageKeyAdmin
from firmware.models import (
    ApprovalRequest,
    DeviceModel,
    Firmware,
    SigningKey,
    StorageKey,
)

admin.site.register(Firmware, FirmwareAdmin)
admin.site.register(DeviceModel, DeviceModelAdmin)
admin.site.register(ApprovalRequest, ApprovalAdmin)
admin.site.register(SigningKey, SigningKeyAdmin)
admin.site.register(StorageKey, StorageKeyAdmin)
