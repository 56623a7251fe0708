"""What can go wrong with devices; each error has a stable code."""

from hotswap.common.errors import (
    ConflictError,
    ForbiddenError,
    GoneError,
    ImpossibleError,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
)


class DeviceNotFoundError(NotFoundError):
    code = "device_not_found"


class DeviceExistsError(ConflictError):
    code = "device_exists"
    pointer = "/deviceId"


class DeviceRevokedError(ConflictError):
    code = "device_revoked"


class CertificateInvalidError(InvalidInputError):
    code = "certificate_invalid"
    pointer = "/certificate"


class CertificateExistsError(ConflictError):
    code = "certificate_exists"
    pointer = "/certificate"


class CertificateExpiredError(ImpossibleError):
    code = "certificate_expired"
    pointer = "/certificate"


class TooManyCertificatesError(ImpossibleError):
    code = "too_many_certificates"
    pointer = "/certificate"


class CertificateNotFoundError(NotFoundError):
    code = "certificate_not_found"


class NoAlarmError(ConflictError):
    code = "no_alarm"


class GroupNotFoundError(NotFoundError):
    code = "group_not_found"


class GroupExistsError(ConflictError):
    code = "group_exists"
    pointer = "/name"


class GroupIsDynamicError(ConflictError):
    code = "group_is_dynamic"


class GroupHasMembersError(ConflictError):
    code = "group_has_members"


class GroupInUseError(ConflictError):
    code = "group_in_use"


class AudienceChangesError(ConflictError):
    """Deployments to come would reach other devices, and nobody has agreed."""

    code = "audience_changes"


class TooManySavedFiltersError(ConflictError):
    code = "too_many_saved_filters"


class UnknownDevicesError(ImpossibleError):
    code = "unknown_devices"


class EnrolmentTokenNotFoundError(NotFoundError):
    code = "enrolment_token_not_found"


class EnrolmentNotFoundError(NotFoundError):
    code = "enrolment_not_found"


class EnrolmentDecidedError(ConflictError):
    """It was decided before, or the device is in already."""

    code = "wrong_status"


class EnrolmentConflictError(ConflictError):
    """Another device, or another try of this one, asks under the same id."""

    code = "enrolment_conflict"


class AlreadyEnrolledError(ConflictError):
    code = "already_enrolled"


class EnrolmentRejectedError(ForbiddenError):
    code = "enrolment_rejected"


class NotAllowedByTokenError(ImpossibleError):
    """The enrolment token is for other devices."""

    code = "not_allowed_by_token"


class ImportNotFoundError(NotFoundError):
    code = "import_not_found"


class EmptyImportError(InvalidInputError):
    code = "empty"


class NotCsvError(InvalidInputError):
    """The file is a workbook, or in another character set."""

    code = "not_csv"


class TooManyLinesError(TooLargeError):
    code = "too_many_lines"


class ImportNotApplicableError(ConflictError):
    """It is no dry run, was applied already, or its file is gone."""

    code = "import_not_applicable"


class ImportNotFinishedError(ConflictError):
    code = "import_not_finished"


class KeysGoneError(GoneError):
    """The keys were delivered, or nobody fetched them in time."""

    code = "keys_gone"
