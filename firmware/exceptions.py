"""What can go wrong with firmware; each error has a stable code."""

from hotswap.common.errors import (
    ConflictError,
    ForbiddenError,
    HotSwapError,
    ImpossibleError,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
)


class FirmwareNotFoundError(NotFoundError):
    code = "firmware_not_found"


class SbomNotFoundError(NotFoundError):
    code = "sbom_not_found"


class InvalidSbomError(InvalidInputError):
    code = "invalid_sbom"


class UnknownModelError(ImpossibleError):
    code = "unknown_model"
    pointer = "/model"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class ModelExistsError(ConflictError):
    code = "model_exists"
    pointer = "/name"


class VersionSchemeInUseError(ConflictError):
    """The versions that the model has were checked and ordered by its scheme."""

    code = "version_scheme_in_use"
    pointer = "/versionScheme"


class InvalidVersionError(InvalidInputError):
    """The text is no version of the scheme of the model."""

    pointer = "/version"


class VersionExistsError(ConflictError):
    code = "version_exists"
    pointer = "/version"


class TooManyVersionsError(ImpossibleError):
    code = "too_many_versions"
    pointer = "/version"


class ChecksumMismatchError(ImpossibleError):
    """What arrived is not what the uploader meant to send; nothing was kept."""

    code = "checksum_mismatch"
    pointer = "/checksum"


class FirmwareInUseError(ConflictError):
    """Devices run the image, or an order to a device names it."""

    code = "firmware_in_use"


class SignatureRevokedError(ConflictError):
    """No key that can be trusted has signed the image."""

    code = "signature_revoked"


class WrongStatusError(ConflictError):
    code = "wrong_status"


class UnknownKeyError(NotFoundError):
    code = "unknown_key"


class KeyStatusError(ConflictError):
    """The key is not in a state that allows this."""

    code = "wrong_key_status"


class LastKeyError(ConflictError):
    """Nothing could be signed or stored any more."""

    code = "last_key"


class NextKeyExistsError(ConflictError):
    code = "next_key_exists"


class KeyInUseError(ConflictError):
    code = "key_in_use"


class OwnUploadError(ForbiddenError):
    code = "four_eyes"


class FirmwareTooLargeError(TooLargeError):
    code = "firmware_too_large"
    pointer = "/file"


class ImageChangedError(ConflictError):
    """The stored image is not what was uploaded; its damage stays noted."""

    code = "image_changed"
    keeps_findings = True


class UploadStalledError(HotSwapError):
    """The client sends too slowly, or has stopped (408); nothing was kept."""

    status = 408
    title = "Request timeout"
    code = "upload_stalled"


class StoreUnavailableError(HotSwapError):
    """The store of images refuses or does not answer; nothing was kept."""

    status = 503
    title = "Store unavailable"
    code = "store_unavailable"


class ImageUnavailableError(HotSwapError):
    """The stored image cannot be given out; this is the server's fault, not the
    caller's.
    """

    status = 503
    title = "Image unavailable"
    code = "image_damaged"


class DownloadEndedError(ForbiddenError):
    """Who receives an image has been shut out meanwhile."""

    code = "download_ended"
