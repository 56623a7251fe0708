"""What `make bench ARGS="... --against REV"` reads and prints."""

from tests.bench import table
from tests.bench.against import Comparison, figures_of, table_of


def test_figures_are_read_from_the_table_that_a_bench_prints() -> None:
    said: list[str] = []
    lines = [
        table.at_least("idle polls", 1851.6, 1500, "many", unit="a second", more="p99"),
        table.at_most("status, p99", 0.0231, 0.1, "one", unit="s"),
        table.failed("upload", RuntimeError("| 3 | 4 |")),
    ]

    table.show(lines, said.append)

    assert figures_of("\n".join(said)) == {"idle polls": 1852, "status, p99": 0.023}


def test_the_ratio_is_that_of_the_medians() -> None:
    found = [Comparison("polls", [100, 300, 200], [400, 500, 90])]

    assert list(table_of("v1", found))[2:] == [
        "| polls | 200.00 (100.00 to 300.00) | 400.00 (90.00 to 500.00) | 2.00 |"
    ]
