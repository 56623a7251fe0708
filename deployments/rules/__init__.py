"""The rule book: each rule of deployments once, for SQL and for Python.

- `codes`: how the part of a device in a deployment ends, and what follows from it.
- `events`: what is logged of a deployment, and who is notified.
- `eligibility`: which devices may be given an order.
- `evidence`: what a device has to show for a proof, for a return, for a retry.
- `triggers`: which measured limits send a device back; the table is `health.triggers`.
"""
