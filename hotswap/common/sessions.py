"""Sessions of the console: rows with an owner, an absolute and an idle limit.

Rules:
- A session ends `CONSOLE_SESSION_LIFETIME` after its login, whatever happens, and
  `CONSOLE_SESSION_IDLE` after the last request of its person. What a page asks for by
  itself, again and again, keeps no session alive.
- Deleting the row ends the session with its next request.
- Until somebody has logged in, a session has no owner and no login.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db.models import F
from django.db.models.functions import Least
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from hotswap.common.api.middleware import is_of_api
from hotswap.common.api.proxy import client_address

# What the session remembers of its login.
LOGIN = "login"
# The header of a request that a page makes by itself.
BACKGROUND_HEADER = "X-HotSwap-Background"
# How exactly activity is written down.
ACTIVITY_STEP = timedelta(minutes=1)
MAX_AGENT = 200


class SessionStore(DatabaseStore):
    """Sessions in `ConsoleSession`."""

    seen_at: datetime | None = None

    @classmethod
    def get_model_class(cls) -> Any:
        # Called while the apps are not loaded yet, if it stood above.
        from hotswap.common.models import ConsoleSession

        return ConsoleSession

    def load(self) -> dict[str, Any]:
        store: Any = super()
        row = store._get_session_from_db()
        if row is None:
            return {}
        self.seen_at = row.last_seen_at
        content: dict[str, Any] = self.decode(row.session_data)
        return content

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        row: Any = super().create_model_instance(data)
        now = timezone.now()
        login = data.get(LOGIN) or {}
        row.public_id = UUID(login["id"]) if login else uuid4()
        row.user_id = data.get(SESSION_KEY)
        row.created_at = datetime.fromtimestamp(login["at"], UTC) if login else now
        row.last_seen_at = now
        row.address = login.get("address")
        row.user_agent = login.get("agent", "")
        row.expire_date = min(
            row.created_at + settings.CONSOLE_SESSION_LIFETIME,
            now + settings.CONSOLE_SESSION_IDLE,
        )
        return row

    def note_activity(self, now: datetime) -> None:
        """Put off the idle end, if the last time is a minute ago or more."""
        if self.seen_at is None or now - self.seen_at < ACTIVITY_STEP:
            return
        self.get_model_class().objects.filter(session_key=self.session_key).update(
            last_seen_at=now,
            expire_date=Least(
                F("created_at") + settings.CONSOLE_SESSION_LIFETIME,
                now + settings.CONSOLE_SESSION_IDLE,
            ),
        )
        self.seen_at = now


def begin_session(request: HttpRequest, now: datetime) -> None:
    """Note in a session that its login was now, and from where."""
    request.session[LOGIN] = {
        "id": str(uuid4()),
        "at": now.timestamp(),
        "address": client_address(request),
        "agent": request.headers.get("User-Agent", "")[:MAX_AGENT],
    }


class SessionActivityMiddleware:
    """Note that a person has used the console."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if (
            not is_of_api(request)
            and BACKGROUND_HEADER not in request.headers
            and settings.SESSION_COOKIE_NAME in request.COOKIES
            and request.user.is_authenticated
        ):
            session: Any = request.session
            session.note_activity(timezone.now())
        return self.get_response(request)
