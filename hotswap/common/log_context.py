"""What every line of the log says of the request or the task that it comes from.

Rules:
- A context is bound once: `requestId` by the middleware, `userId` and `deviceId` where
  the caller is recognised, `deploymentId`, `firmwareVersion` and `strategy` where the
  deployment is looked up. It ends with the request or the task, and goes with the tasks
  that they start.
- Plain requests of devices (`deployments.protocols.native.fast_path`) are answered
  before the middleware: they have no context, and log next to nothing.
"""

from contextlib import AbstractContextManager

import structlog


def bind(**values: str) -> None:
    """Add to every further line of this request or task.

    Args:
        values: names in snake_case; in the log they are camelCase.
    """
    structlog.contextvars.bind_contextvars(**values)


def bound(**values: str) -> AbstractContextManager[None]:
    """Add to the lines that are written within; see `bind`."""
    return structlog.contextvars.bound_contextvars(**values)
