"""Run the program until the device stops it."""

import sys

from sensor.loop import run

sys.exit(run())
