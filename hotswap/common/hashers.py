"""How passwords are hashed."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class PasswordHasher(Argon2PasswordHasher):
    """Argon2id at the first of the parameters that OWASP names.

    Django's take four times the work, in eight threads at once: a few guesses a second
    would keep devices waiting.
    """

    memory_cost = 47_104
    time_cost = 1
    parallelism = 1
