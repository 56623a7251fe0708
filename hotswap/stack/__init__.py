"""Start and keep running all of HotSwap on one machine."""

from hotswap.stack.errors import StackError
from hotswap.stack.stack import Stack

__all__ = ["Stack", "StackError"]
