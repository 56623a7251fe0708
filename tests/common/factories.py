"""People, made through the service."""

import itertools
from typing import Any

import factory

from hotswap.common.models import User
from hotswap.common.people import create_person
from hotswap.common.roles import Role

PASSWORD = "Correct-Horse-7"
# Redis outlives the test, and counts failed logins by name.
_numbers = itertools.count(1)


class PersonFactory(factory.Factory[User]):
    """A person who may log in with `PASSWORD`."""

    class Meta:
        model = User

    username = factory.LazyFunction(lambda: f"person-{next(_numbers)}")
    password = PASSWORD
    role = Role.VIEWER
    actor = None

    class Params:
        admin = factory.Trait(role=Role.ADMIN)
        operator = factory.Trait(role=Role.OPERATOR)

    @classmethod
    def _create(cls, model_class: type[User], *args: Any, **kwargs: Any) -> User:
        return create_person(**kwargs)
