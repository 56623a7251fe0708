"""What lies in the kernel between an answer and a client that takes its time."""

import socket

from hotswap.sockets import TCP_NOTSENT_LOWAT, UNSENT_BYTES, limit_unsent


def mark_of(each: socket.socket) -> int:
    return each.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)


def test_what_a_listening_socket_accepts_has_the_mark() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = mark_of(listener)

        assert limit_unsent() >= 1

        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                assert before == 0
                assert mark_of(accepted) == UNSENT_BYTES
                assert mark_of(client) == 0
