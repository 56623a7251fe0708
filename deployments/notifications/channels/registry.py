"""Which channels there are, in the order in which people see them.

One more costs a module beside the others that declares it, a line below, its refusals
in `deployments/exceptions.py`, its model in `deployments/models.py` with a migration,
its lines in the table of roles, and its part of `docs/notifications.md`.
"""

from deployments.models import Receiver
from deployments.notifications.channels.gateway import GATEWAY
from deployments.notifications.channels.mail import MAIL
from deployments.notifications.channels.types import Channel
from deployments.notifications.channels.webhook import WEBHOOK

CHANNELS: tuple[Channel, ...] = (WEBHOOK, MAIL, GATEWAY)
OF_MODEL: dict[type[Receiver], Channel] = {each.model: each for each in CHANNELS}
