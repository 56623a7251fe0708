"""What may keep a stack from running, told in one line to a person."""


class StackError(Exception):
    """The stack cannot start or go on; the text says why and what to do."""
