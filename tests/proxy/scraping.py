"""Reading the metrics of a proxy in the same process."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio
from prometheus_client.parser import text_string_to_metric_families

from shadowcat.proxy.metrics import MetricsApp
from shadowcat.telemetry import CallCounts, LoopLag


class Scraper:
    """What Prometheus would see: values by name and labels, ``name{a="b"}``."""

    def __init__(self, app, counts):
        self.lag = LoopLag()
        self.served = MetricsApp(app, counts, self.lag, "127.0.0.1")

    async def scrape(self):
        _, text = await self.served.scrape()
        return values_of(text.decode())

    @asynccontextmanager
    async def moving(self):
        """Yield a mapping that has, after the block, how much each counter of ours has moved."""
        before = await self.scrape()
        moved = {}
        yield moved
        await trio.testing.wait_all_tasks_blocked()
        after = await self.scrape()
        moved.update({name: value - before.get(name, 0.0) for name, value in after.items() if is_count(name)})
        for name in [name for name, value in moved.items() if not value]:
            del moved[name]


def values_of(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def is_count(name):
    bare = name.partition("{")[0]
    return bare.startswith("shadowcat_") and bare.endswith(("_total", "_count"))


@asynccontextmanager
async def scraping(app):
    """Count what *app* does in the block, and yield what reads that."""
    counts = CallCounts()
    with app.observers.observing(counts):
        yield Scraper(app, counts)
