"""The errors of health."""

from hotswap.common.errors import InvalidInputError


class InvalidRangeError(InvalidInputError):
    code = "invalid_range"


class HeartbeatRefusedError(InvalidInputError):
    code = "heartbeat_refused"
