"""Start one program of the stack in place of this small script.

Run as a plain file by a bare interpreter (`python -I -S launch.py ...`), so that
nothing has to happen between fork and exec in the supervisor, which has threads.

Rules:
- The program ends with its supervisor: the kernel is asked to signal it when the
  thread that started it is gone (Linux; elsewhere the next start clears leftovers).
- A program that refuses to run as root gets another user. The folders it needs may
  lie below one that only root may enter; then it keeps the one right to enter it.

Usage: launch.py PARENT SIGNAL USER GROUP ENTER -- PROGRAM ARGUMENT...
    PARENT is the supervisor's pid, SIGNAL what to get when it dies, USER and GROUP
    are numbers or "-", ENTER is 1 where the user may not enter the folders itself.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
# Rights do not follow the user id; access(2) then goes by them as all other calls do.
SECURE_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


class CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class CapabilityData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def keep_right_to_enter(libc: ctypes.CDLL) -> None:
    """Keep, of all rights of root, the smallest that passes closed folders.

    Containers often withhold the right to search; the wider one is taken only there.
    """
    header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
    data = (CapabilityData * 2)()
    if libc.capget(ctypes.byref(header), data) != 0:
        return
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        bit = 1 << capability
        if data[0].permitted & bit:
            kept = (CapabilityData * 2)()
            kept[0] = CapabilityData(bit, bit, bit)
            libc.capset(ctypes.byref(header), kept)
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


def apply_rights_to_access(libc: ctypes.CDLL) -> None:
    """Have access(2), too, go by the right to enter.

    For users other than root it leaves rights out, and PostgreSQL asks it whether its
    programs are there. Whatever other rights stay at the change of user are dropped
    right after it, or by the program's start.
    """
    bits = libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
    if bits >= 0:
        libc.prctl(PR_SET_SECUREBITS, bits | SECURE_NO_SETUID_FIXUP, 0, 0, 0)


def main(arguments: list[str]) -> None:
    parent, death_signal, user, group, enter, separator, *command = arguments
    if separator != "--":
        raise SystemExit("launch.py: wrong arguments")
    libc = ctypes.CDLL(None, use_errno=True)
    if user != "-":
        enter_closed = enter == "1" and sys.platform == "linux"
        if enter_closed:
            libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
            apply_rights_to_access(libc)
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
        os.umask(0o077)
        if enter_closed:
            keep_right_to_enter(libc)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            raise SystemExit("launch.py: the supervisor is gone")
    # What an interpreter or a shell ignores would stay ignored in the program.
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
