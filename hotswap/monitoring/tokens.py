"""The fixed token of whoever scrapes; loads no models."""

import hmac

from django.conf import settings


def is_metrics_token(header: bytes) -> bool:
    """Tell whether an Authorization header shows the token of the settings."""
    kind, _, token = header.partition(b" ")
    wanted = settings.METRICS_TOKEN.encode()
    return bool(
        wanted
        and kind.lower() == b"bearer"
        and hmac.compare_digest(token.strip(), wanted)
    )
