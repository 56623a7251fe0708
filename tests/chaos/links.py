"""A link between two parts: it passes bytes on, and can be cut, slowed and spoiled."""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hotswap.stack.folder import free_port

# A socket of the loopback, or the path of a Unix socket.
Address = int | Path
CHUNK_BYTES = 64 * 1024
# Shorter pieces are headers and short answers.
SPOILT_FROM_BYTES = 1024
# Ends a connection by a reset, and not in order.
RESET = struct.pack("ii", 1, 0)


def reset(end: socket.socket) -> None:
    """End a connection at once, so that its other end notices."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with contextlib.suppress(OSError):
        # Wakes the thread that reads from it.
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@dataclass(eq=False, slots=True)
class Connection:
    """One connection: from a client to the link, and from there to the server."""

    client: socket.socket
    server: socket.socket
    has_lost: bool = False
    is_half_open: bool = False

    def end(self) -> None:
        reset(self.client)
        reset(self.server)


@dataclass(eq=False)
class Link:
    """Listens at one address and passes on what comes to another.

    Attributes:
        target: may change; connections that are open stay where they are.
        delay: seconds that each piece waits.
    """

    listens_at: Address
    target: Address
    delay: float = 0.0
    _is_cut: bool = False
    _is_silent: bool = False
    _spoils: random.Random | None = None
    _connections: set[Connection] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _receiver: socket.socket = field(init=False)

    @classmethod
    def to_port(cls, target: int) -> "Link":
        """Return a link at a free port of the loopback."""
        return cls(free_port(), target)

    @property
    def port(self) -> int:
        assert isinstance(self.listens_at, int)
        return self.listens_at

    def __post_init__(self) -> None:
        if isinstance(self.listens_at, int):
            self._receiver = socket.create_server(("127.0.0.1", self.listens_at))
        else:
            self._receiver = socket.socket(socket.AF_UNIX)
            self._receiver.bind(str(self.listens_at))
            self._receiver.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        reset(self._receiver)
        self._end_all()

    # Faults

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Reset every connection, and every new one."""
        self._is_cut = True
        self._end_all()
        try:
            yield
        finally:
            self._is_cut = False

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Lose every byte, without a word; what has lost any is reset afterwards."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False
            with self._lock:
                lost = [each for each in self._connections if each.has_lost]
            for each in lost:
                each.end()

    @contextlib.contextmanager
    def half_open(self) -> Iterator[None]:
        """Take the server away from every connection, and do not tell the client."""
        with self._lock:
            halves = list(self._connections)
        for each in halves:
            each.is_half_open = True
            reset(each.server)
        try:
            yield
        finally:
            for each in halves:
                each.end()

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Hold each piece back for so long."""
        self.delay = seconds
        try:
            yield
        finally:
            self.delay = 0.0

    @contextlib.contextmanager
    def lying(self, chance: random.Random) -> Iterator[None]:
        """Flip a bit in each long piece that comes from the server."""
        self._spoils = chance
        try:
            yield
        finally:
            self._spoils = None

    # Passing on

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._receiver.accept()
            except OSError:
                return
            if self._is_cut:
                reset(client)
                continue
            try:
                server = self._reach()
            except OSError:
                reset(client)
                continue
            connection = Connection(client, server)
            with self._lock:
                self._connections.add(connection)
            for is_answer in (False, True):
                threading.Thread(
                    target=self._pass_on, args=(connection, is_answer), daemon=True
                ).start()

    def _reach(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection(("127.0.0.1", self.target), timeout=5)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self.target))
        except OSError:
            server.close()
            raise
        return server

    def _pass_on(self, connection: Connection, is_answer: bool) -> None:
        source, sink = connection.client, connection.server
        if is_answer:
            source, sink = sink, source
        with contextlib.suppress(OSError):
            source.settimeout(None)
            while piece := source.recv(CHUNK_BYTES):
                if connection.is_half_open:
                    continue
                if self.delay:
                    time.sleep(self.delay)
                if self._is_silent or connection.has_lost:
                    connection.has_lost = True
                    continue
                sink.sendall(self._spoilt(piece) if is_answer else piece)
        if not connection.is_half_open:
            connection.end()
            with self._lock:
                self._connections.discard(connection)

    def _spoilt(self, piece: bytes) -> bytes:
        if self._spoils is None or len(piece) < SPOILT_FROM_BYTES:
            return piece
        changed = bytearray(piece)
        # The end of a piece is body, whatever precedes it.
        place = self._spoils.randrange(len(piece) * 3 // 4, len(piece))
        changed[place] ^= 1 << self._spoils.randrange(8)
        return bytes(changed)

    def _end_all(self) -> None:
        with self._lock:
            ending = list(self._connections)
            self._connections.clear()
        for each in ending:
            each.end()
