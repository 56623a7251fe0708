"""Whether a password is a common one in disguise.

Django's list of common passwords has few that are long enough to be taken here, so that
a short one is made longer: written twice, or with digits and signs at its ends.
"""

import re
from typing import Any, Final

from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.exceptions import ValidationError

FEWEST_CHARACTERS: Final = 5
# Anybody who attacks this server thinks of these (OWASP ASVS 5, 6.2.11).
WORDS_OF_OURS: Final = frozenset({"hotswap", "firmware", "administrator", "operator"})
ENDS = re.compile(r"^[\W\d_]+|[\W\d_]+$")
REPEATED = re.compile(r"(.+?)\1*")


class DisguisedPasswordValidator(CommonPasswordValidator):
    """Refuses common passwords that are repeated or padded, and few characters."""

    def validate(self, password: str, user: Any = None) -> None:
        """Check a password.

        Raises:
            ValidationError: it is one of those.
        """
        if len(set(password)) < FEWEST_CHARACTERS:
            raise ValidationError(
                f"This password has fewer than {FEWEST_CHARACTERS} different "
                "characters.",
                code="password_repeats",
            )
        whole = password.lower()
        if any(self._is_common(text) for text in (whole, ENDS.sub("", whole))):
            raise ValidationError(
                "This password is a common one, repeated or with digits and signs "
                "around it.",
                code="password_disguised",
            )

    def get_help_text(self) -> str:
        return "Your password can't be a common one that was only made longer."

    def _is_common(self, text: str) -> bool:
        found = REPEATED.fullmatch(text)
        unit = found[1] if found is not None else text
        core = ENDS.sub("", unit)
        return bool({unit, core} & (self.passwords | WORDS_OF_OURS))
