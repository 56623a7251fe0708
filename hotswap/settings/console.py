"""What the console looks like."""

from typing import Any

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
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254)",
            "100": "oklch(93.2% .032 255)",
            "200": "oklch(88.2% .059 254)",
            "300": "oklch(80.9% .105 252)",
            "400": "oklch(70.7% .165 255)",
            "500": "oklch(62.3% .19 258)",
            "600": "oklch(52% .2 261)",
            "700": "oklch(46% .19 263)",
            "800": "oklch(42% .17 265)",
            "900": "oklch(37.9% .146 266)",
            "950": "oklch(28.2% .091 268)",
        }
    },
}
