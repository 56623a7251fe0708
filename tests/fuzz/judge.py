"""Whether requests and answers are as the description of the API has them."""

import json
import re
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import jsonschema_rs

from tests.api import PROBLEM
from tests.description import closed, component, description, fault_of
from tests.fuzz.findings import FAILURES
from tests.fuzz.requests import Request
from tests.wsgi import Answer

JSON = "application/json"


class Judge:
    """Compares requests and their answers with the description."""

    def __init__(self) -> None:
        self.paths: dict[str, Any] = description()["paths"]
        self._validators: dict[str, Any] = {}

    def complaints(self, path: str, method: str, answer: Answer) -> list[str]:
        """Say what is wrong with an answer.

        Args:
            path: as the description has it.
        """
        if answer.status >= 500:
            return [self.failure(answer)]
        if answer.status >= 400:
            return self._of_problem(answer)
        methods = self.paths[path]
        if method == "HEAD":
            return [] if not answer.body and "get" in methods else ["HEAD with a body"]
        responses = methods.get(method.lower(), {}).get("responses", {})
        described = responses.get(str(answer.status))
        if described is None:
            return [f"the status {answer.status} is not described"]
        contents = described.get("content", {})
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if not contents or answer.status == 304:
            return [f"a body that is not described: {kind}"] if answer.body else []
        if kind not in contents:
            return [f"{answer.status} as {kind!r}, which is not described"]
        if kind != JSON:
            return []
        fault = fault_of(path, method.lower(), answer.status, kind, answer.body)
        return [fault[:200]] if fault else []

    def forbidden(self, path: str, request: Request) -> str:
        """Say what in the query or the JSON of a request the description forbids.

        Nothing is said of what it has no word for: names of the query that it does not
        know, a body where it has none, another type of body, and none at all; nor of
        the body of a device, which is read leniently.
        """
        method = request.method.lower()
        operation = self.paths[path].get(method, {})
        query = parse_qs(request.target.partition("?")[2], keep_blank_values=True)
        for parameter in operation.get("parameters", ()):
            name, schema = parameter["name"], parameter["schema"]
            values = query.get(name, []) if parameter["in"] == "query" else []
            if len(values) > 1 and schema["type"] != "array":
                continue
            items = schema.get("items", schema)
            validator = self._validator(f"{path} {method} {name}", items)
            for value in values:
                if not validator.is_valid(_of_query(value, items["type"])):
                    return f"{name}={value[:80]}"
        security = operation.get("security", ())
        is_of_device = any("deviceToken" in each for each in security)
        kind = request.headers.get("Content-Type", "")
        contents = operation.get("requestBody", {}).get("content", {})
        if kind not in contents or kind != JSON or is_of_device or not request.body:
            return ""
        try:
            body = json.loads(request.body)
        except ValueError:
            return "no JSON"
        validator = self._validator(f"{path} {method} body", contents[kind]["schema"])
        error = next(validator.iter_errors(body), None)
        return f"{_place(error.instance_path)}: {error.message[:160]}" if error else ""

    @staticmethod
    def failure(answer: Answer) -> str:
        """Say why the server failed."""
        return f"{answer.status}: {FAILURES.take()!r:.300}"

    def _of_problem(self, answer: Answer) -> list[str]:
        kind = answer.headers.get("Content-Type", "")
        if kind != PROBLEM:
            return [f"{answer.status} as {kind!r}"]
        try:
            problem = json.loads(answer.body)
        except ValueError:
            return [f"{answer.status} without JSON"]
        held = self._validator("problem", component("ProblemOutput"))
        found = [
            f"{answer.status}, at {_place(error.instance_path)}: {error.message[:160]}"
            for error in held.iter_errors(problem)
        ]
        if not found and problem["status"] != answer.status:
            found.append("a problem document of another status")
        return found

    def _validator(self, key: str, schema: Any) -> Any:
        found = self._validators.get(key)
        if found is None:
            found = jsonschema_rs.Draft202012Validator(
                closed(schema), validate_formats=True
            )
            self._validators[key] = found
        return found

    @cached_property
    def routes(self) -> list[tuple[str, str]]:
        """Every path with each of its methods."""
        return [
            (path, method.upper())
            for path, methods in self.paths.items()
            for method in methods
        ]


def _of_query(value: str, kind: str) -> Any:
    """Return what the text of a query says; itself, if nothing of that kind."""
    if kind == "integer" and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


def _place(path: Any) -> str:
    return "/".join(str(each) for each in path)
