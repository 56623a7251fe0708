"""How a channel is declared: once, beside the function that sends.

From the declaration are built what the API takes and answers, its routes, the lists,
pages and forms of the console, and the entry of the sidebar.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.models import Delivery, Receiver
from deployments.notifications.sending import Outcome
from hotswap.common.errors import ConflictError, NotFoundError

Attempt = Callable[[], Outcome]


def _accept(_: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The field that says where a receiver is, as a URL or a mail address.

    Attributes:
        name: of the field, in the model and as people send it.
        label, hint, placeholder: in the form of the console.
        input_help: what the schema says of it.
        shown: the field that is shown in its place, where it holds secrets.
        shown_help: what the schema says of that.
        is_changeable: another may be given later.
        column: its heading in the list of the console, if not the label.
    """

    name: str
    label: str
    hint: str = ""
    placeholder: str = ""
    input_help: str | None = None
    shown: str = ""
    shown_help: str | None = None
    maximum_length: int = 2000
    is_mail_address: bool = False
    is_changeable: bool = True
    column: str = ""

    @property
    def is_secret(self) -> bool:
        return bool(self.shown)


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to notify; a receiver is somebody who is notified by it.

    Attributes:
        model: of its receivers; names their kind, and the field of a delivery.
        route: of the list of them in the API.
        name: of one of them, in small letters; an s makes it plural.
        icon: of the sidebar (Material Symbols).
        about, about_adding: what the schema says of the list, and of adding one.
        empty_words: what an empty list of the console says, and what would fill it.
        maximum: how many of them there may be.
        missing, disabled: the refusals of one that is not there (404), or that is
            disabled (409).
        endpoint: the field that says where it is.
        make_attempt: returns what sends deliveries of one receiver as one message. It
            may read rows. What it returns is called in a thread of its own, outside
            of any transaction: it knows no database, gives up in less than a minute,
            and never raises for a fault of the receiver.
        check: refuses an endpoint that may not be used, else returns what the audit
            trail keeps of it.
        duplicate: the refusal of an endpoint that is there already (409), if it is
            unique.
        has_secret: a secret is made with it, shown once, and can be rotated.
        has_own_queue: it may be slow, so each receiver is sent to beside the others.
        is_for_people: whoever does not say of what is told what needs a person; else
            of everything.
        gathering: how long a message about a deployment waits for more of its events,
            to be one with them; zero: each event is a message of its own.
    """

    model: type[Receiver]
    route: str
    name: str
    icon: str
    about: str
    about_adding: str
    empty_words: tuple[str, str]
    maximum: int
    missing: type[NotFoundError]
    disabled: type[ConflictError]
    endpoint: Endpoint
    make_attempt: Callable[[Sequence[Delivery], datetime], Attempt]
    check: Callable[[str], dict[str, Any]] = _accept
    duplicate: type[ConflictError] | None = None
    has_secret: bool = False
    has_own_queue: bool = True
    is_for_people: bool = True
    gathering: timedelta = timedelta(0)

    @property
    def plural(self) -> str:
        return f"{self.name}s"

    @property
    def key(self) -> str:
        """The column of a delivery that names a receiver of it."""
        return f"{self.model.delivery_field}_id"
