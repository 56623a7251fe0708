"""The benches by the names of `names.py`; the stack runs and Django is set up."""

from collections.abc import Callable

from tests.bench import bulk, deployments, pages, requests, rollback
from tests.bench.ground import Ground
from tests.bench.names import NAMES
from tests.bench.table import Line

_FUNCTIONS: dict[str, Callable[[Ground], list[Line]]] = {
    "idle": requests.idle,
    "polls": requests.polls,
    "heartbeats": requests.heartbeats,
    "first": requests.first_heartbeats,
    "downloads": requests.downloads,
    "list": requests.device_list,
    "console": pages.console,
    "create": deployments.create,
    "operate": deployments.operate,
    "status": deployments.status,
    "updates": deployments.updates,
    "concurrent": deployments.concurrent,
    "detection": rollback.detection,
    "faults": rollback.faults,
    "upload": bulk.upload,
    "import": bulk.import_devices,
}
BENCHES = {name: _FUNCTIONS[name] for name in NAMES}
