"""What must hold of every history, whatever was killed meanwhile.

- `rows.py` what was stored, and what the devices themselves witnessed.
- `read.py` reads it from a database.
- `orders.py` replays the log and the reports of each order.
- `stages.py` works out each gate again from the log alone.
- `devices.py` asks what each device knows, and whether it has come to an end.
- `verdicts.py` judges each device again by what it showed.

`faults_in` is a pure function over the rows: it imports nothing of HotSwap, so it has
an opinion of its own.
"""

from collections.abc import Mapping

from tests.history.devices import faults_of_devices
from tests.history.orders import faults_of_orders
from tests.history.read import read_history, read_over
from tests.history.rows import (
    Deployment,
    Event,
    History,
    Limits,
    Order,
    Reading,
    Report,
    Stage,
    Target,
    Witness,
)
from tests.history.stages import faults_of_stages
from tests.history.verdicts import faults_of_verdicts

__all__ = [
    "Deployment",
    "Event",
    "History",
    "Limits",
    "Order",
    "Reading",
    "Report",
    "Stage",
    "Target",
    "Witness",
    "faults_in",
    "read_history",
    "read_over",
]


def faults_in(history: History, witnesses: Mapping[str, Witness]) -> list[str]:
    """Give everything that should not be in a history, in words; [] if it is right.

    Args:
        history: of a deployment that has come to its end.
        witnesses: by device; those of which nothing is known are left out.
    """
    return [
        *faults_of_orders(history),
        *faults_of_stages(history),
        *faults_of_devices(history, witnesses),
        *faults_of_verdicts(history),
    ]
