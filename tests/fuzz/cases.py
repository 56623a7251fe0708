"""Cases drawn from the description of the API: what it allows, and what it forbids.

Schemathesis draws them: first every boundary that the description states, then by
chance. What a case names is often replaced by what there is, or most would be about
devices and images that nobody has.

Run as a program of its own, whose input is a pickled `Order` and whose output are
pickled `Drawn`: what Hypothesis draws depends on the modules that are loaded and on
the hashes of strings, and has to be the same at each run.
"""

import json
import pickle
import random
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count, islice
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation

from tests.description import description
from tests.fuzz.names import ADMIN, CALLERS, DEVICE, NOBODY, Names
from tests.fuzz.requests import Drawn, Order, Request

BOTH = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
SENT = frozenset(
    {"method", "url", "headers", "cookies", "params", "data", "json", "files"}
)
REPLACED = 0.8
MADE_UP = frozenset({"X-Schemathesis-TestCaseId", "User-Agent"})
# As `urllib3` draws it, and what stands for it.
BOUNDARY = re.compile(r"boundary=([0-9a-f]{32})\Z")
FIXED = "0" * 32
# Of an operation at a time.
MOST_EACH = 50


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: Any, value: Any) -> bytes:
    """Write a value as NDJSON."""
    return b"\n".join(json.dumps(line).encode() for line in _listed(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Description:
    """The description of the API, as a source of cases."""

    def __init__(self, document: dict[str, Any], names: Names) -> None:
        self.document = document
        self.names = names
        self.schema = schemathesis.openapi.from_dict(document)
        found: Any = self.schema.get_all_operations()
        self.operations = [each.ok() for each in found]

    def drawn(self, requests: int, seed: int) -> Iterator[Drawn]:
        """Draw cases for a number of requests: boundaries, at most half; then others.

        If the boundaries are too many, those taken lie evenly among all.
        """
        chance = random.Random(seed)
        every = list(self._boundaries())
        step = max(1, -(-len(every) // max(1, requests // 2)))
        taken = every[::step]
        for case in taken:
            if found := self._drawn(case, chance):
                yield found
        number = (requests - len(taken)) // len(CALLERS)
        each = min(MOST_EACH, max(1, number // (len(BOTH) * len(self.operations))))
        for found in islice(self._by_chance(seed, each), number):
            callers = dict.fromkeys((*found.callers, *CALLERS))
            yield replace(found, callers=tuple(callers))

    def _boundaries(self) -> Iterator[Case]:
        """Give every case at a boundary of what the description allows."""
        for operation in self.operations:
            config = self.schema.config.generation_for(
                operation=operation, phase="coverage"
            )
            yield from self.schema.iter_coverage_cases(
                operation, generation_modes=BOTH, generation_config=config
            )

    def _by_chance(self, seed: int, each: int) -> Iterator[Drawn]:
        """Draw cases of every operation without end, half of which it forbids."""
        for turn in count():
            for operation in self.operations:
                for mode in BOTH:
                    what = f"{seed} {turn} {operation.label} {mode.name}"
                    yield from self._draw(
                        operation, mode, zlib.crc32(what.encode()), each
                    )

    def _draw(
        self, operation: Any, mode: GenerationMode, number: int, each: int
    ) -> list[Drawn]:
        chance = random.Random(number)
        drawn: list[Drawn] = []

        @hypothesis.seed(number)
        @hypothesis.settings(
            max_examples=each,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        def draw(case: Case) -> None:
            if found := self._drawn(case, chance):
                drawn.append(found)

        # Of some operations nothing could be wrong.
        with suppress(Unsatisfiable):
            draw()
        return drawn

    def _drawn(self, case: Case, chance: random.Random) -> Drawn | None:
        """Return the request of a case, None if no client could send it."""
        meta = case.meta
        assert meta is not None
        is_valid = meta.generation.mode == GenerationMode.POSITIVE
        data: Any = meta.phase.data
        is_about_the_token = getattr(data, "parameter", None) == "Authorization"
        caller = NOBODY if is_about_the_token else self._furthest(case, chance)
        path = meta.components.get(ParameterLocation.PATH)
        if path is None or path.mode == GenerationMode.POSITIVE:
            self._name_places(case, caller, chance)
        if case.body is not NOT_SET:
            case.body = self._named(case.body, chance)
        given = {
            name: value
            for name, value in case.as_transport_kwargs("http://testserver").items()
            if name in SENT
        }
        try:
            prepared = requests.Request(**given).prepare()
        except (requests.RequestException, UnicodeError):
            return None
        request = _as_at_each_run(prepared)
        return Drawn(
            request=request,
            path=case.path,
            callers=(caller,),
            is_valid=is_valid and not is_about_the_token,
        )

    def _furthest(self, case: Case, chance: random.Random) -> str:
        methods = self.document["paths"].get(case.path, {})
        security = methods.get(case.method.lower(), {}).get("security", [{}])
        schemes = {name for each in security for name in each}
        if "deviceToken" not in schemes:
            return ADMIN
        is_for_people = "personToken" in schemes
        return ADMIN if is_for_people and chance.random() < 0.5 else DEVICE

    def _name_places(self, case: Case, caller: str, chance: random.Random) -> None:
        places = dict(case.path_parameters)
        for name in places:
            known = self.names.of(name, case.path)
            if caller == DEVICE and name in self.names.own:
                known = (self.names.own[name],)
            if known and chance.random() < REPLACED:
                places[name] = chance.choice(known)
        case.path_parameters = places

    def _named(self, value: Any, chance: random.Random, name: str = "") -> Any:
        """Return a value in which names of what there is stand for made-up ones."""
        if isinstance(value, dict):
            return {
                key: self._named(part, chance, str(key)) for key, part in value.items()
            }
        if isinstance(value, list):
            return [self._named(part, chance, name) for part in value]
        known = self.names.known.get(name, ())
        if isinstance(value, str) and known and chance.random() < REPLACED:
            return chance.choice(known)
        return value


def _as_at_each_run(prepared: requests.PreparedRequest) -> Request:
    """Return a request without what the libraries make up anew each time."""
    headers = {
        name: value if isinstance(value, str) else value.decode("latin-1")
        for name, value in prepared.headers.items()
        if name not in MADE_UP
    }
    content: Any = prepared.body or b""
    body = content.encode() if isinstance(content, str) else bytes(content)
    kind = headers.get("Content-Type", "")
    if boundary := BOUNDARY.search(kind):
        headers["Content-Type"] = kind.replace(boundary[1], FIXED)
        body = body.replace(boundary[1].encode(), FIXED.encode())
    return Request(
        method=str(prepared.method),
        target=prepared.path_url,
        headers=headers,
        body=body,
    )


def main() -> None:
    """Draw what is ordered."""
    order: Order = pickle.load(sys.stdin.buffer)
    for drawn in Description(description(), order.names).drawn(
        order.requests, order.seed
    ):
        pickle.dump(drawn, sys.stdout.buffer)


if __name__ == "__main__":
    main()
