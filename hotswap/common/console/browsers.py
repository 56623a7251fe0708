"""What browsers call themselves, in the words of people."""

import re

# Of those that a browser names, the first found here is what it is: it names older ones
# too, so that sites made for them serve it.
BROWSERS = (
    ("Edge", r"Edg(?:A|iOS)?"),
    ("Opera", r"OPR"),
    ("Samsung Internet", r"SamsungBrowser"),
    ("Firefox", r"(?:Firefox|FxiOS)"),
    ("Chrome", r"(?:Headless)?(?:Chrome|CriOS)"),
    ("Safari", r"Version(?=/\S+ (?:Mobile/\S+ )?Safari/)"),
)
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("macOS", "Macintosh"),
    ("ChromeOS", "CrOS"),
    ("Linux", "Linux"),
)


def browser_in_words(user_agent: str) -> str:
    """Name the browser, its version and its system; what is unknown as it calls itself.

    It is what the browser says of itself, and proves nothing.
    """
    for name, token in BROWSERS:
        if found := re.search(rf"\b{token}/(\d+)", user_agent):
            systems = (system for system, word in SYSTEMS if word in user_agent)
            system = next(systems, "")
            return f"{name} {found[1]}{f' on {system}' if system else ''}"
    return user_agent
