"""Verbs of the deployments app.

Order of locks, wherever several are taken: deployment, order, target, device state.
The sweeps take orders with `SKIP LOCKED`, so that they never wait for a device that
is reporting; what they skip they find a second later.
"""
