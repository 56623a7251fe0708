"""Registers people and the audit trail, and takes away what nobody edits by hand."""

from django.contrib import admin
from django.contrib.auth.models import Group
from django_celery_beat import models as beat

from hotswap.common.console.pages.audit_event import AuditEventAdmin
from hotswap.common.console.pages.user import UserAdmin
from hotswap.common.models import AuditEvent, User

# Roles are fixed, and schedules belong to the settings: neither is edited by hand.
for model in (
    Group,
    beat.ClockedSchedule,
    beat.CrontabSchedule,
    beat.IntervalSchedule,
    beat.PeriodicTask,
    beat.SolarSchedule,
):
    if admin.site.is_registered(model):
        admin.site.unregister(model)

admin.site.register(User, UserAdmin)
admin.site.register(AuditEvent, AuditEventAdmin)
