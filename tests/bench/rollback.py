"""From what a device suffers to its way back."""
from tests.bench.ground import Ground
from tests.bench.table import Line

def detection(ground: Ground) -> list[Line]:
    return []

def faults(ground: Ground) -> list[Line]:
    return []
