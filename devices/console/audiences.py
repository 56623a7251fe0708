"""Forms whose changes may reach into deployments that have yet to start."""

from typing import Any

from django import forms

from devices.exceptions import AudienceChangesError
from hotswap.common.console.forms import ConsoleForm
from hotswap.common.errors import HotSwapError

ACKNOWLEDGE = "acknowledge"


class AcknowledgingForm(ConsoleForm):
    """Asks for a tick where deployments to come would reach other devices.

    The box appears when the service refuses for that reason, together with the
    deployments and their counts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_bound and ACKNOWLEDGE in self.data:
            self.ask()

    def ask(self) -> None:
        """Show the box."""
        self.fields[ACKNOWLEDGE] = forms.BooleanField(
            label="Change whom these deployments reach", required=False
        )

    @property
    def is_ticked(self) -> bool:
        return bool(self.cleaned_data.get(ACKNOWLEDGE))

    @property
    def filled_in(self) -> dict[str, Any]:
        """What was filled in, without the box."""
        return {name: x for name, x in self.cleaned_data.items() if name != ACKNOWLEDGE}

    def refuse(self, error: HotSwapError) -> None:
        if not isinstance(error, AudienceChangesError):
            super().refuse(error)
            return
        self.add_error(
            None,
            "Nothing is changed yet: deployments to come would reach other devices. "
            "Tick the box if that is meant.",
        )
        for part in error.errors:
            self.add_error(None, part.detail)
        self.ask()
