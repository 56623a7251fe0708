"""Registers people and the audit trail, and takes away what nobody edits by hand."""

from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.models import Group
from django_celery_beat import models as beat

from hotswap.common.console.pages.audit_event import AuditEventAdmin
from hotswap.common.console.pages.user import UserAdmin
from hotswap.common.models import AuditEvent, User

# Roles are fixed, schedules and providers belong to the settings, and second factors to
# their person: none of these is edited by hand.
for model in (
    Group,
    EmailAddress,
    Authenticator,
    SocialAccount,
    SocialApp,
    SocialToken,
    beat.ClockedSchedule,
    beat.CrontabSchedule,
    beat.IntervalSchedule,
    beat.PeriodicTask,
    beat.SolarSchedule,
):
    if admin.site.is_registered(model):
        admin.site.unregister(model)

# The admin's own form knows nothing of second factors.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

admin.site.register(User, UserAdmin)
admin.site.register(AuditEvent, AuditEventAdmin)
