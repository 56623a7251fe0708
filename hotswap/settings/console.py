"""What the console looks like, and what its pages may load."""

from typing import Any

from csp.constants import NONCE, NONE, SELF

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "HotSwap",
    "SITE_HEADER": "HotSwap",
    "SITE_SUBHEADER": "Firmware updates",
    "SITE_SYMBOL": "sync_alt",
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "hotswap.console.theme.environment_label",
    "DASHBOARD_CALLBACK": "hotswap.console.index.overview",
    "STYLES": ["hotswap.console.theme.stylesheet"],
    "SCRIPTS": [
        "hotswap.console.theme.script",
        "hotswap.console.theme.live_script",
        "hotswap.console.theme.charts_script",
    ],
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": "hotswap.console.theme.icon",
        }
    ],
    "ACCOUNT": {"navigation": "hotswap.common.console.account.account_links"},
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "navigation": "hotswap.console.sidebar.sidebar",
    },
    "BORDER_RADIUS": "6px",
    "COLORS": "hotswap.console.theme.colors",
}

# See `hotswap.console.security`, which lets the console evaluate expressions.
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
