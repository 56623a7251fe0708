"""The advisory locks of PostgreSQL, all of them: which number stands for what.

All but the last are those of a transaction and end with it. Where one is taken together
with rows, the order is said beside it. A lock with a second key is one of many: of a
deployment, or of a model.
"""

from typing import Final

# One launch at a time, so that two at once cannot both take the last place. Taken after
# the firmware and the groups, before the deployment is written.
LAUNCH: Final = 0x4853_5741
# Second key: the deployment. One poll at a time counts the orders of a paced one. Taken
# before the target.
PACE: Final = 0x5041_4345
# Second key: the deployment. Orders within one half share it; whoever takes the turn
# has it alone. Taken before the target.
HALF: Final = 0x4841_4C46
# Shared by whoever signs or seals, alone for whoever changes the rings of keys.
KEYS: Final = 0x4853_4B52
# Second key: the model. Shared while devices write the key of their version, alone for
# whoever orders the versions of the model anew.
VERSION_ORDER: Final = 0x4853_564B
# One at a time changes who is an Admin, so that one stays. Taken before the people.
PEOPLE_CHANGE: Final = 0x4853_5045
# One server announces what became of devices. Not waited for.
ANNOUNCEMENTS: Final = 0x6865_6172
# One server makes and drops partitions of the history. Not waited for.
PARTITIONS: Final = 0x6865_616C
# One `prepare` at a time makes the roles of the database and gives them their rights.
DATABASE_ROLES: Final = 0x4853_5242
# One server seals the audit trail. Not waited for; anchors and evidence wait for it.
AUDIT_CHAIN: Final = 0x4853_4155
# One process migrates. Held by its session, and not waited for inside of a statement.
MIGRATIONS: Final = 0x4853_4D47
