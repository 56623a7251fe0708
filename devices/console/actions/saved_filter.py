"""What people do to the filters that they keep."""

from typing import Any

from django import forms

from devices.services import saved_filters
from hotswap.common.console.actions.base import LinkedAction
from hotswap.common.console.forms import ConsoleForm
from hotswap.common.models import User
from hotswap.common.roles import Role


class SavedFilterForm(ConsoleForm):
    name = forms.CharField(max_length=64)


class SaveFilterForm(SavedFilterForm):
    query = forms.CharField(max_length=2000, widget=forms.HiddenInput)


class SaveFilter(LinkedAction):
    role = Role.VIEWER
    name = "save-filter"
    label = "Save filter"
    icon = "bookmark_add"
    form_class = SaveFilterForm

    def notes(self, obj: Any) -> tuple[str, ...]:
        return ("You alone see it, above the list. The same name replaces it.",)

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        saved = saved_filters.save_filter(user=user, **given)
        return f"The filter {saved} is saved."


class RemoveFilter(LinkedAction):
    role = Role.VIEWER
    name = "remove-filter"
    label = "Remove filter"
    icon = "bookmark_remove"
    form_class = SavedFilterForm

    def execute(self, user: User, obj: Any, given: dict[str, Any]) -> str:
        saved_filters.remove_filter(user=user, name=given["name"])
        return f"The filter {given['name']} is removed."
