"""Run the program until the device stops it."""

from sensor.loop import run

run()
