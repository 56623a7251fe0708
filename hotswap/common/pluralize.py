"""Numbers in sentences."""


def counted(count: int, one: str, many: str = "") -> str:
    """Return the number with its word, as in "1 device" and "2,000 devices".

    `many` is the plural where it is more than an added "s", as in "devices are".
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def times(count: int) -> str:
    """Return how often something happened: "once", "twice", "3 times"."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")
