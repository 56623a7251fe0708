"""Faults of many kinds, one after the other, on two hosts: `make chaos`.

- `links.py` connections through which bytes pass, until they are to be cut or spoiled.
- `site.py` two hosts, the servers that they share, the proxy, and the links between.
- `fleet.py` the devices, and the deployment that a fault strikes.
- `kinds.py` the faults, each from its strike until all is whole again.
- `silence.py` how long no tick began.
"""
