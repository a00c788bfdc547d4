"""A load's own record of its calls: what became of each."""

import collections
import csv

# The start in seconds since the epoch and the latency in seconds; who answered, or, if the load tells, why it failed.
Call = collections.namedtuple("Call", "number start latency code backend message", defaults=[""])


def read(path):
    with path.open() as lines:
        return [
            Call(int(number), int(start) / 1e9, int(latency) / 1e6, *rest)
            for number, start, latency, *rest in csv.reader(lines)
        ]
