"""Counters and histograms that the database keeps, whoever counts and whoever asks.

Rules:
- What is counted is written in the transaction of its event: an event that is undone is
  not counted, one that is repeated without effect is not counted twice.
- Rows are only added, so that nobody waits for anybody; `fold` sums them up later. A
  value is the sum of its rows, before and after.
- Labels have few values. None names a device, a person or a deployment.

Source: specification, Observability Requirements, Metrics.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from hotswap.common.models import MetricCount

COUNTER: Final = -1
"""The bucket of rows that belong to a counter."""

Labels = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Counter:
    """One number that only rises, for each combination of its labels.

    Attributes:
        name: as Prometheus shows it.
        specified: the name that the specification uses; empty for others.
        help: what is counted.
        labels: by name the values that a label may have; an empty tuple where they
            come from the data (regions, models).
    """

    name: str
    specified: str
    help: str
    labels: Labels

    def entry(self, number: int = 1, **labels: str) -> MetricCount:
        """Return the row that counts an event `number` times."""
        return MetricCount(
            metric=self.name, labels=_values(self.labels, labels), count=number
        )

    def counting(self, rows: str, *, where: str = "true") -> str:
        """Return the SQL that counts rows, for a WITH clause.

        Args:
            rows: a name in the clause; it has a column for every label.
            where: SQL over these rows, which are counted.
        """
        return f"""
            INSERT INTO common_metriccount (metric, labels, bucket, count, total)
            SELECT '{self.name}', ARRAY[{_columns(self.labels)}]::varchar[], {COUNTER},
                   count(*), 0
            FROM {rows} WHERE {where}
            GROUP BY {_columns(self.labels)}
        """  # noqa: S608


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a duration fell into each of some buckets.

    Attributes:
        bounds: the upper ends of the buckets in seconds, rising; what is above the
            last one falls into one more.
        name, specified, help, labels: as of a counter.
    """

    name: str
    specified: str
    help: str
    labels: Labels
    bounds: tuple[float, ...]

    def entry(self, seconds: float, **labels: str) -> MetricCount:
        """Return the row that counts one duration."""
        return MetricCount(
            metric=self.name,
            labels=_values(self.labels, labels),
            bucket=sum(bound < seconds for bound in self.bounds),
            count=1,
            total=seconds,
        )

    def counting(self, rows: str, *, seconds: str, where: str = "true") -> str:
        """Return the SQL that counts the durations of rows, for a WITH clause.

        Args:
            rows, where: as of a counter.
            seconds: SQL over these rows; a duration that is NULL is not counted.
        """
        # Backwards, so that a bound belongs to the bucket below it.
        bounds = ", ".join(str(-bound) for bound in reversed(self.bounds))
        return f"""
            INSERT INTO common_metriccount (metric, labels, bucket, count, total)
            SELECT '{self.name}', ARRAY[{_columns(self.labels)}]::varchar[], bucket,
                   count(*), sum(seconds)
            FROM (
                SELECT *, {len(self.bounds)} - width_bucket(
                    -seconds, ARRAY[{bounds}]::float8[]) AS bucket
                FROM (
                    SELECT *, ({seconds})::float8 AS seconds FROM {rows} WHERE {where}
                ) AS measured
                WHERE seconds IS NOT NULL
            ) AS sorted
            GROUP BY {_columns(self.labels)}, bucket
        """  # noqa: S608


@dataclass(frozen=True, slots=True)
class Gauge:
    """One number of now, for each combination of its labels, read by one statement.

    Attributes:
        query: SQL that gives the labels in their order, and then one number or more.
        name, specified, help, labels: as of a counter.
        column: which of the numbers it is; gauges of one query are read together.
    """

    name: str
    specified: str
    help: str
    labels: Labels
    query: str
    column: int = 0

    def rows(self) -> list[tuple[Any, ...]]:
        """Return what the query gives."""
        with connection.cursor() as cursor:
            cursor.execute(self.query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    def values(self, rows: list[tuple[Any, ...]]) -> list[tuple[list[str], float]]:
        """Return the labels' values and the number of each combination."""
        width = len(self.labels)
        return [
            ([str(each) for each in row[:width]], float(row[width + self.column]))
            for row in rows
        ]


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of one combination of labels, in one bucket."""

    labels: tuple[str, ...]
    bucket: int
    count: int
    total: float


def write(entries: Iterable[MetricCount]) -> None:
    """Write what was counted, by one statement, in the transaction of its event."""
    MetricCount.objects.bulk_create(entries)


def read() -> dict[str, list[Sample]]:
    """Return what has been counted by all processes since ever, by metric."""
    found: dict[str, list[Sample]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT metric, labels, bucket, sum(count)::bigint, sum(total)
            FROM common_metriccount
            GROUP BY metric, labels, bucket
            ORDER BY metric, labels, bucket
            """
        )
        for metric, labels, bucket, count, total in cursor.fetchall():
            sample = Sample(tuple(labels), bucket, count, total)
            found.setdefault(metric, []).append(sample)
    return found


def fold() -> int:
    """Put one row in the place of all that count the same; return how many there were.

    Rows that another process folds at this moment are left to it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH several AS (
                SELECT metric, labels, bucket FROM common_metriccount
                GROUP BY metric, labels, bucket HAVING count(*) > 1
            ), found AS (
                SELECT each.id FROM common_metriccount each
                JOIN several USING (metric, labels, bucket)
                FOR NO KEY UPDATE OF each SKIP LOCKED
            ), gone AS (
                DELETE FROM common_metriccount each USING found
                WHERE each.id = found.id
                RETURNING each.metric, each.labels, each.bucket, each.count, each.total
            ), kept AS (
                INSERT INTO common_metriccount (metric, labels, bucket, count, total)
                SELECT metric, labels, bucket, sum(count), sum(total) FROM gone
                GROUP BY metric, labels, bucket
            )
            SELECT count(*) FROM gone
            """
        )
        folded: int = cursor.fetchone()[0]
    return folded


def _columns(labels: Labels) -> str:
    return ", ".join(labels)


def _values(labels: Labels, given: Mapping[str, Any]) -> list[str]:
    if given.keys() != labels.keys():
        raise ValueError(f"labels are {list(labels)}, not {list(given)}")
    return [str(given[name]) for name in labels]
