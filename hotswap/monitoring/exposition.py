"""Everything that `/metrics` shows, in the text format of Prometheus.

Two kinds, which docs/operate/observability.md tells apart:
- Of the installation: from the database, Redis and the store. They are the same whoever
  is asked, and not to be added up.
- Of a host or a process: requests, CPU, memory, disk.
"""

import itertools
import os
from collections.abc import Iterator

from django.conf import settings
from django.db import DatabaseError
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.multiprocess import MultiProcessCollector

from hotswap.common import metrics
from hotswap.monitoring import processes, status
from hotswap.monitoring.caching import cached
from hotswap.monitoring.catalogue import COUNTERS, GAUGES, HISTOGRAMS


class DatabaseCollector:
    """Counters and histograms as they are now, gauges as they were a moment ago.

    Counters are never remembered: two processes behind one address would show a number
    that falls.
    """

    def collect(self) -> Iterator[Metric]:
        found: list[Metric] = []
        try:
            found += self._kept()
            for gauge in GAUGES:
                family = GaugeMetricFamily(
                    gauge.name, gauge.help, labels=list(gauge.labels)
                )
                rows = cached.get(gauge.query, gauge.rows)
                numbers: dict[tuple[str, ...], float] = dict.fromkeys(
                    _combinations(gauge.labels), 0
                )
                numbers |= {
                    tuple(labels): number for labels, number in gauge.values(rows)
                }
                for labels, number in numbers.items():
                    family.add_metric(labels, number)
                found.append(family)
        except DatabaseError:
            # What cannot be read is left out; that the database is away is said below.
            found = []
        yield from found

    def _kept(self) -> Iterator[Metric]:
        samples = metrics.read()
        for counter in COUNTERS:
            values = dict.fromkeys(_combinations(counter.labels), 0)
            values |= {
                each.labels: each.count for each in samples.get(counter.name, [])
            }
            family = CounterMetricFamily(
                counter.name, counter.help, labels=list(counter.labels)
            )
            for labels, count in values.items():
                family.add_metric(list(labels), count)
            yield family
        for histogram in HISTOGRAMS:
            shown = HistogramMetricFamily(
                histogram.name, histogram.help, labels=list(histogram.labels)
            )
            grouped = itertools.groupby(
                samples.get(histogram.name, []), key=lambda each: each.labels
            )
            for labels, group in grouped:
                parts = {each.bucket: each for each in group}
                total, buckets = 0, []
                for index, bound in enumerate((*histogram.bounds, float("inf"))):
                    total += parts[index].count if index in parts else 0
                    name = "+Inf" if bound == float("inf") else str(float(bound))
                    buckets.append((name, total))
                shown.add_metric(
                    list(labels),
                    buckets=buckets,
                    sum_value=sum(each.total for each in parts.values()),
                )
            yield shown


def _combinations(labels: metrics.Labels) -> Iterator[tuple[str, ...]]:
    """Yield every combination of labels, where all their values are known."""
    if all(labels.values()):
        yield from itertools.product(*labels.values())


class StatusCollector:
    """How the parts of the installation fare, as on `/health/status`."""

    def collect(self) -> Iterator[Metric]:
        found = status.cached_status()
        yield GaugeMetricFamily(
            "hotswap_serving",
            "Whether the fleet is being served: 1 or 0",
            value=found.is_serving,
        )
        up = GaugeMetricFamily(
            "hotswap_part_up",
            "Whether a part of the installation does its work: 1 or 0",
            labels=["part"],
        )
        figures = GaugeMetricFamily(
            "hotswap_part_figure",
            "The figure of a part, in its unit",
            labels=["part", "unit"],
        )
        ages = GaugeMetricFamily(
            "hotswap_part_age_seconds",
            "How long ago it last ran, or how long the oldest in it has waited",
            labels=["part"],
        )
        for part in found.parts:
            age = part.age
            if age is not None or part.name in status.QUEUES:
                ages.add_metric([part.name], age.total_seconds() if age else 0)
            up.add_metric([part.name], part.state != status.State.DOWN)
            if part.figure is not None:
                figures.add_metric([part.name, part.unit], part.figure)
        yield up
        yield figures
        yield ages


class HostCollector:
    """The host and the processes of the web server."""

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "hotswap_build_info", "The version that runs here", labels=["version"]
        )
        build.add_metric([status.VERSION], 1)
        yield build
        cpu = CounterMetricFamily(
            "hotswap_host_cpu_seconds",
            "Time of all processors of the host",
            labels=["mode"],
        )
        for mode, seconds in processes.host_cpu_seconds():
            cpu.add_metric([mode], seconds)
        yield cpu
        memory = GaugeMetricFamily(
            "hotswap_host_memory_bytes", "Memory of the host", labels=["state"]
        )
        for state, size in processes.host_memory_bytes():
            memory.add_metric([state], size)
        yield memory
        disk = GaugeMetricFamily(
            "hotswap_disk_bytes", "The disk of the data folder", labels=["state"]
        )
        for state, size in status.disk_bytes(settings.DATA_DIR):
            disk.add_metric([state], size)
        yield disk
        restarts = CounterMetricFamily(
            "hotswap_program_restarts",
            "Programs that `hotswap serve` started again: they ended, or were frozen",
            labels=["program", "reason"],
        )
        for program, reason, number in processes.program_restarts(settings.DATA_DIR):
            restarts.add_metric([program, reason], number)
        yield restarts
        pids = processes.sibling_pids()
        yield GaugeMetricFamily(
            "hotswap_web_processes", "Processes of this web server", value=len(pids)
        )
        yield GaugeMetricFamily(
            "hotswap_web_resident_bytes",
            "Resident memory of all of them",
            value=sum(map(processes.resident_bytes, pids)),
        )


def web_metrics() -> bytes:
    """Return what a web server shows: its own numbers and those of the installation."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector())
    registry.register(StatusCollector())
    registry.register(HostCollector())
    shown = bytes(generate_latest(registry))
    if processes.VARIABLE in os.environ:
        own = CollectorRegistry()
        MultiProcessCollector(own)
    else:
        own = REGISTRY
    return shown + bytes(generate_latest(own))
