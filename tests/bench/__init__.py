"""`make bench`: what HotSwap does in a given time, beside what it has to.

Plain programs, not tests: targets in seconds depend on the machine and live here alone.
"""
