"""What can go wrong with deployments; each error has a stable code."""

from hotswap.common.errors import (
    ConflictError,
    FieldError,
    ForbiddenError,
    ImpossibleError,
    InvalidInputError,
    NotFoundError,
)


class DeploymentNotFoundError(NotFoundError):
    code = "deployment_not_found"


class NotQuarantinedError(NotFoundError):
    code = "not_quarantined"


class UpdateNotFoundError(NotFoundError):
    code = "update_not_found"


class FirmwareNotDeployableError(ImpossibleError):
    code = "firmware_not_approved"
    pointer = "/firmwareId"


class FleetEmptyError(ImpossibleError):
    code = "empty_fleet"
    pointer = "/greenFleet"


class NoEligibleDevicesError(ImpossibleError):
    code = "no_eligible_devices"


class IneligibleDevicesError(ImpossibleError):
    code = "ineligible_devices"


class TooManyDevicesError(ImpossibleError):
    code = "too_many_devices"


class TooManyDeploymentsError(ConflictError):
    code = "too_many_deployments"


class TooManyTemplatesError(ConflictError):
    code = "too_many_templates"


class AudienceMovedError(ConflictError):
    code = "audience_changed"


class AcknowledgementRequiredError(ConflictError):
    """A warning of the launch was not named; `errors` tells each with its code."""

    code = "acknowledgement_required"


class WrongStatusError(ConflictError):
    code = "wrong_status"


class OwnLaunchError(ForbiddenError):
    code = "own_launch"


class NothingToRetryError(ConflictError):
    code = "nothing_to_retry"


class NothingToRollBackError(ConflictError):
    code = "nothing_to_roll_back"


class FleetIsLiveError(ConflictError):
    """The half that serves does not go back before the other one serves."""

    code = "fleet_is_live"


class UnknownScopeError(ImpossibleError):
    """A part that the deployment does not have."""

    code = "unknown_scope"

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> "UnknownScopeError":
        detail = f"{detail} in this deployment"
        return cls(detail, code=code, errors=[FieldError(pointer, code, detail)])


class UpdateClosedError(ConflictError):
    code = "update_closed"


class NoActiveUpdateError(ForbiddenError):
    code = "no_active_update"


class WebhookNotFoundError(NotFoundError):
    code = "webhook_not_found"


class WebhookRefusedError(InvalidInputError):
    code = "webhook_refused"


class WebhookDisabledError(ConflictError):
    code = "webhook_disabled"


class TooManyReceiversError(ConflictError):
    code = "too_many_receivers"


class DeliveryNotFoundError(NotFoundError):
    code = "delivery_not_found"


class RecipientNotFoundError(NotFoundError):
    code = "mail_recipient_not_found"


class RecipientDisabledError(ConflictError):
    code = "mail_recipient_disabled"


class GatewayNotFoundError(NotFoundError):
    code = "gateway_not_found"


class GatewayRefusedError(InvalidInputError):
    code = "gateway_refused"


class GatewayDisabledError(ConflictError):
    code = "gateway_disabled"


class AppriseNotInstalledError(ConflictError):
    code = "apprise_not_installed"


class RecipientKnownError(ConflictError):
    code = "mail_recipient_known"
