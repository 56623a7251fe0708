"""A column of bytes that the master key has sealed.

Whoever declares one has done all that a change of the master key needs:
`hotswap.master_key` walks over these fields.
"""

from typing import Any

from django.db import models


class SealedField(models.BinaryField):
    """Bytes that `hotswap.common.keyring.seal` has made; empty where nothing is sealed.

    Attributes:
        purpose: what it is sealed and unsealed with.
    """

    def __init__(self, *args: Any, purpose: str = "", **options: Any) -> None:
        self.purpose = purpose
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Describe it to migrations as the column of bytes that it is."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.BinaryField", args, options
