"""The benches by name, in the order in which they run.

A hundred deployments are the most that may be active, and some benches leave one that
is going back: so the hundred come first.
"""

NAMES = {
    "idle": "CPU of a stack with nothing to do",
    "polls": "idle polls a second",
    "heartbeats": "heartbeats stored a second",
    "first": "first heartbeats of devices a second",
    "downloads": "images of 64 KiB fetched a second",
    "list": "device list, page by page and from any depth",
    "console": "pages of the console beside 10,000 deployments",
    "concurrent": "100 deployments at once, to their end",
    "create": "create the largest deployment",
    "operate": "open a stage of it, pause it, roll it back",
    "status": "the status of the largest deployment",
    "updates": "devices a minute through the whole update",
    "detection": "a bad report to the rollback; a breach to its detection",
    "faults": "a deployment of faulty devices that rolls back",
    "upload": "an image of 100 MB",
    "import": "100,000 devices from a file",
}
