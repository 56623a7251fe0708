"""How devices authenticate, as the schema describes it."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

from hotswap.common.api.schema import BearerScheme


class DeviceTokenScheme(BearerScheme):
    target_class = "devices.api.authentication.DeviceAuthentication"
    name = "deviceToken"


class DeviceCertificateScheme(OpenApiAuthenticationExtension):
    target_class = "devices.api.authentication.CertificateAuthentication"
    name = "deviceCertificate"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "mutualTLS",
            "description": "Where certificates are optional; checked by the proxy.",
        }
