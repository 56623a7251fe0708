"""The process that hands one message to apprise, or checks a URL; loads no Django.

Rules:
- The order comes in on stdin and one line of JSON goes out on stdout, so that the URL
  with its secrets shows in no list of processes and no environment.
- Of what apprise says only the status of an answer gets out: its log repeats URLs.
- Only services on the list are used: those of one known host that is spoken to over
  TLS, and those of any host, which is checked like the one of a webhook.
- Once apprise is loaded, the process may connect to permitted addresses alone, whatever
  a name resolves to or a redirect says. It may read nothing but its libraries, write no
  file and start no program.
- Whoever starts it kills it when its time is over.
"""

import ipaddress
import json
import logging
import mimetypes
import os
import re
import socket
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from deployments.notifications.addresses import (
    Network,
    TargetRefusedError,
    is_permitted,
)

# Each speaks to hosts of its service alone, and over TLS.
SERVICES = frozenset(
    (
        *("46elks", "elks", "bulksms", "bulkvs", "burstsms", "kudosity", "clickatell"),
        *("clicksend", "cm", "d7sms", "httpsms", "msg91", "msgbird", "nexmo", "vonage"),
        *("octopush", "plivo", "seven", "sinch", "sns", "telesign", "telnyx"),
        *("threema", "twilio", "voipms", "whatsapp", "discord", "flock", "gchat"),
        *("line", "pbul", "pover", "prowl", "slack", "tgram", "twist", "webex"),
        *("wxteams", "zulip", "betterstack", "ilert", "incidentio", "opsgenie"),
        *("pagerduty", "signl4", "spike", "splunk"),
    )
)
# Their URLs name the host; whether they speak to it over TLS.
_SECURE = (
    *("apprises", "forms", "gotifys", "jsons", "matrixs", "mmosts", "nctalks", "ntfys"),
    *("rockets", "signals", "smseagles", "workflow", "workflows", "xmls"),
)
_PLAIN = (
    *("apprise", "form", "gotify", "json", "matrix", "mmost", "nctalk", "ntfy"),
    *("rocket", "signal", "smseagle", "xml"),
)
HOSTED = {**dict.fromkeys(_SECURE, True), **dict.fromkeys(_PLAIN, False)}
# Arguments whose value is the name of a file, or of a place to load one from.
FILES = frozenset({"attach", "config", "include", "keyfile", "subfile", "template"})
STATUS = re.compile(r"error=(\d{3})\b")
MEMORY_BYTES = 1 << 30
MAX_PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 10.0

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READABLE = tuple(
    os.path.realpath(place) + os.sep
    for place in (
        *(sysconfig.get_path(x) for x in ("stdlib", "platstdlib", "purelib")),
        sysconfig.get_path("platlib"),
        "/usr/share/zoneinfo",
    )
)
READABLE_FILES = ("/etc/localtime", *mimetypes.knownfiles)
FORBIDDEN = (
    *("ctypes.", "os.chmod", "os.chown", "os.exec", "os.fork", "os.kill", "os.link"),
    *("os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.spawn"),
    *("os.startfile", "os.symlink", "os.system", "os.truncate", "os.utime", "pty."),
    *("shutil.", "socket.bind", "subprocess.", "tempfile."),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of it. `kind` is empty where all went well."""

    kind: str = ""
    error: str = ""
    status: int | None = None


class Guard:
    """What the process may still do; remembers the first connection it refused."""

    def __init__(self, allowed: Sequence[Network], *, plain: bool) -> None:
        self.allowed = allowed
        self.plain = plain
        self.refused = ""

    def check_address(self, name: str) -> None:
        """Refuse to go where webhooks may not go.

        Raises:
            TargetRefusedError: it is neither public nor allowed, or public and the
                connection would be without TLS.
        """
        if is_permitted(name, allowed=self.allowed, plain=self.plain):
            return
        if is_permitted(name, allowed=self.allowed):
            raise TargetRefusedError(
                "there is no encryption; take the secure form of its scheme"
            )
        raise TargetRefusedError(f"its host leads to {name}, which is not public")

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse what the process does not need (`sys.addaudithook`)."""
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            self._check_connection(arguments[1])
        elif event == "open":
            _check_file(arguments[0], arguments[2])
        elif event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} is refused")

    def _check_connection(self, address: Any) -> None:
        # A path is a Unix socket; None stands for a connection that is there already.
        if address is None:
            return
        try:
            name = str(address[0]).partition("%")[0]
            self.check_address(name)
        except (TargetRefusedError, ValueError, IndexError, TypeError) as error:
            is_known = isinstance(error, TargetRefusedError)
            self.refused = self.refused or (
                str(error) if is_known else "a local socket"
            )
            raise PermissionError("the connection is refused") from None


def _check_file(place: Any, flags: int) -> None:
    if isinstance(place, int):
        return
    if flags & WRITING and os.fsdecode(place) != os.devnull:
        raise PermissionError("writing is refused")
    found = os.path.realpath(os.fsdecode(place))
    if not found.startswith(READABLE) and os.fsdecode(place) not in READABLE_FILES:
        raise PermissionError("reading is refused")


class Statuses(logging.Handler):
    """Takes the status of an answer out of what apprise logs, and drops the rest."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Remember the last status that was named."""
        for text in STATUS.findall(record.getMessage()):
            self.found = int(text)


def _limit_memory() -> None:
    """Keep an endless answer from taking the machine's memory."""
    if sys.platform == "linux":
        import resource  # Not every system has it.

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _opened(url: str, guard: Guard) -> Any:
    """Return the plugin of a URL that may be used.

    Raises:
        TargetRefusedError: it may not, or there is no such service.
    """
    # Found to be there by the caller.
    from apprise import Apprise, AppriseAsset
    from apprise.plugins import url_to_dict

    scheme = url.partition("://")[0].lower()
    parts = url_to_dict(url)
    if not parts or str(parts["schema"]).lower() != scheme:
        raise TargetRefusedError("is not a URL that apprise understands")
    if FILES & {str(name).strip().lower() for name in parts.get("qsd") or ()}:
        raise TargetRefusedError("must not have files loaded by an argument")
    asset = AppriseAsset(
        async_mode=False, http_redirects=False, storage_mode="memory", app_id="HotSwap"
    )
    plugin = Apprise.instantiate(parts, asset=asset)
    if plugin is None:
        raise TargetRefusedError(f"is not a complete URL of {scheme}")
    if plugin.redirects:
        raise TargetRefusedError("must not follow redirects")
    if not plugin.verify_certificate:
        raise TargetRefusedError("must not go without checking certificates")
    if scheme in HOSTED:
        _check_host(str(plugin.host), guard)
    # Its usual pause between two recipients would outlast the process, and its usual
    # patience is shorter than that for webhooks.
    plugin.request_rate_per_sec = min(plugin.request_rate_per_sec, MAX_PAUSE_SECONDS)
    plugin.socket_read_timeout = max(plugin.socket_read_timeout, TIMEOUT_SECONDS)
    return plugin


def _check_host(host: str, guard: Guard) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # What stands in its place may be a secret, so it is not repeated.
        raise TargetRefusedError("its host does not resolve to an address") from None
    for entry in found:
        guard.check_address(str(entry[4][0]))


def carry_out(order: dict[str, Any]) -> Answer:
    """Check a URL and, if the order has a text, send it.

    Args:
        order: `url`; `allowed`, networks that are permitted; `title` and `text`.
    """
    scheme = order["url"].partition("://")[0].lower()
    if scheme not in SERVICES and scheme not in HOSTED:
        return Answer(
            "refused",
            "does not begin with the scheme of a service that is known here "
            "(docs/notifications.md, SMS and chat)",
        )
    try:
        import apprise  # It is optional.
    except ImportError:
        return Answer("not_installed", "apprise is not installed")
    statuses = Statuses()
    log = logging.getLogger("apprise")
    log.addHandler(statuses)
    log.propagate = False
    guard = Guard(
        [ipaddress.ip_network(text) for text in order["allowed"]],
        plain=scheme in HOSTED and not HOSTED[scheme],
    )
    sys.addaudithook(guard.hook)
    try:
        plugin = _opened(order["url"], guard)
    except TargetRefusedError as error:
        return Answer("refused", str(error))
    if "text" not in order:
        return Answer()
    sender = apprise.Apprise(asset=plugin.asset)
    sender.add(plugin)
    if sender.notify(order["text"], order["title"], body_format="text"):
        return Answer()
    if guard.refused:
        return Answer("refused", guard.refused)
    if statuses.found is not None:
        return Answer(
            "failed", f"the service answered {statuses.found}", statuses.found
        )
    return Answer("failed", "the service could not be reached, or did not take it")


def main() -> None:
    """Carry out the order on stdin; end at once, whatever still runs."""
    order = json.load(sys.stdin)
    # Whatever else a library prints must not stand in the way of the answer.
    out: TextIO = sys.stdout
    sys.stdout = sys.stderr
    _limit_memory()
    try:
        answer = carry_out(order)
    except Exception as error:  # noqa: BLE001 - its text may hold the URL
        answer = Answer("failed", f"apprise stumbled ({type(error).__name__})")
    print(json.dumps(asdict(answer)), file=out, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
