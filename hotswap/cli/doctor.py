"""`hotswap doctor`: what is wrong with this installation, and what to do about it."""

import typer

from hotswap.cli.keys import AsJson, DataDir, find_server, on_the_server, print_result

MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


def doctor(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Look at this installation; exit 1 if something is wrong with it."""
    find_server(data_dir)
    # Even with keys that are lost there is much to say.
    with on_the_server(as_json, check=False):
        from hotswap.monitoring.doctor import Verdict, examine

        findings = list(examine())
    lines = []
    for each in findings:
        lines.append(f"{MARKS[each.verdict]}  {each.name}: {each.says}")
        if each.advice:
            lines.append(f"         {' ' * len(each.name)}  {each.advice}")
    problems = sum(each.verdict == Verdict.PROBLEM for each in findings)
    print_result(
        as_json,
        {
            "problems": problems,
            "findings": [
                {
                    "name": each.name,
                    "verdict": each.verdict.value,
                    "says": each.says,
                    "advice": each.advice,
                }
                for each in findings
            ],
        },
        *lines,
    )
    if problems:
        raise typer.Exit(1)
