"""What can go wrong with devices; each error has a stable code."""

from hotswap.common.errors import ConflictError, ImpossibleError, NotFoundError


class DeviceNotFoundError(NotFoundError):
    code = "device_not_found"


class DeviceExistsError(ConflictError):
    code = "device_exists"


class DeviceRevokedError(ConflictError):
    code = "device_revoked"


class NoAlarmError(ConflictError):
    code = "no_alarm"


class GroupNotFoundError(NotFoundError):
    code = "group_not_found"


class GroupExistsError(ConflictError):
    code = "group_exists"


class GroupIsDynamicError(ConflictError):
    code = "group_is_dynamic"


class GroupHasMembersError(ConflictError):
    code = "group_has_members"


class UnknownDevicesError(ImpossibleError):
    code = "unknown_devices"
