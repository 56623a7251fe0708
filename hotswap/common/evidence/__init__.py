"""Evidence packs: one signed zip of all that is known about a firmware or deployment.

- `pack`: writes a pack while it is sent.
- `trail`: the rows of the audit trail about it, their chain and its anchor.
- `check`: checks a pack with nothing but the public key; pure.
"""
