"""Tables of what was measured: the median of each figure."""

from collections import defaultdict
from statistics import median

from .cases import IDLE, PAYLOADS, RATES, SHAPES, shape_name
from .machine import SPOILT

OURS = "evenkeel"
SHAPE_NAMES = [shape_name(*it) for it in SHAPES]
# What other programs do not change.
MEMORY = {"rss", "open", "called"}
# By shape: our CPU time over that of HAProxy is to be at most this.
GOALS = {"1x100": 0.25, "10x10": 0.40, "100x1": 0.65}


class Results:
    def __init__(self, rows):
        self.rows = rows
        self.found = defaultdict(list)
        for row in rows:
            self.found[row["proxy"], row["case"]].append(row)
        # Spoilt rows count only where there are no others.
        self.doubtful = set()
        for key, found in self.found.items():
            quiet = [row for row in found if row["foreign"] <= SPOILT]
            self.found[key] = quiet or found
            if not quiet:
                self.doubtful.add(key)
        self.proxies = list(dict.fromkeys(row["proxy"] for row in rows))

    def get(self, proxy, case, key):
        """The median, or None where it was not measured."""
        values = [row[key] for row in self.found[proxy, case] if key in row]
        return median(values) if values else None

    def doubt(self, proxy, case):
        return "?" if (proxy, case) in self.doubtful else ""

    def cell(self, proxy, case, key, digits=1, scale=1.0, ratio=True):
        value = self.get(proxy, case, key)
        if value is None:
            return "–"
        text = f"{value * scale:.{digits}f}"
        if key not in MEMORY:
            text += self.doubt(proxy, case)
        ours = self.get(OURS, case, key)
        return f"{text} ({value / ours:.2f})" if ratio and ours and proxy != OURS else text

    def table(self, title, columns, cell):
        """One row a proxy; rows and columns without a figure are left out."""
        names = [column if isinstance(column, str) else column[0] for column in columns]
        rows = [(proxy, [cell(proxy, column) for column in columns]) for proxy in self.proxies]
        rows = [(proxy, cells) for proxy, cells in rows if any(text != "–" for text in cells)]
        shown = [n for n in range(len(names)) if any(cells[n] != "–" for _, cells in rows)]
        if rows:
            print(f"\n### {title}\n")
            print_row(["proxy", *(names[n] for n in shown)])
            print_row(["---"] * (len(shown) + 1))
        for proxy, cells in rows:
            print_row([proxy, *(cells[n] for n in shown)])


def print_row(cells):
    print(f"| {' | '.join(cells)} |")


def report(rows):
    results = Results(rows)
    print("In parentheses: that figure over evenkeel's. With a question mark: other programs were busy, too.")
    small_calls(results)
    latency(results)
    payloads(results)
    memory(results)
    scaling(results)
    goals(results)
    complaints(results)


def small_calls(results):
    results.table("CPU µs a small call, connections × streams", SHAPE_NAMES,
                  lambda proxy, case: results.cell(proxy, case, "us", 2))
    results.table("Calls a second that one core has time for", SHAPE_NAMES,
                  lambda proxy, case: per_core(results, proxy, case))
    results.table("Calls a second that were made / use of the proxy's core", SHAPE_NAMES,
                  lambda proxy, case: with_use(results, proxy, case))


def per_core(results, proxy, case):
    cost = results.get(proxy, case, "us")
    return f"{1e6 / cost:,.0f}" + results.doubt(proxy, case) if cost else "–"


def with_use(results, proxy, case):
    use = results.get(proxy, case, "use")
    if use is None:
        return "–"
    return f"{results.get(proxy, case, 'speed'):,.0f} / {use:.2f}" + results.doubt(proxy, case)


def latency(results):
    for calls in RATES:
        case = f"{calls}/s"
        columns = [("p50 µs", "p50"), ("p99 µs", "p99"), ("p99.9 µs", "p999")]
        columns += [(f"{name[:3]} added µs", name[:3] + "+") for name, _ in columns[:2]]
        results.table(f"{calls} calls/s, open loop, 10 connections", [*columns, ("CPU µs a call", "us")],
                      lambda proxy, column: latency_cell(results, proxy, case, column[1]))


def latency_cell(results, proxy, case, key):
    if key == "us":
        return results.cell(proxy, case, key)
    offered, speed = results.get(proxy, case, "offered"), results.get(proxy, case, "speed")
    if offered and speed < 0.98 * offered:
        return "over capacity"
    if key.endswith("+"):
        value, direct = results.get(proxy, case, key[:-1]), results.get("direct", case, key[:-1])
        return "–" if value is None or direct is None or proxy == "direct" else f"{value - direct:.0f}"
    return results.cell(proxy, case, key, 0)


def payloads(results):
    units = [("ns/byte", "ns"), ("MB/s", "speed")]
    columns = [(f"{name} {unit}", name, key) for name, _, _ in PAYLOADS for unit, key in units]
    results.table("CPU ns a byte of payload", columns,
                  lambda proxy, column: results.cell(proxy, column[1], column[2], 2 if column[2] == "ns" else 0,
                                                     ratio=column[2] == "ns"))


def memory(results):
    cases = [*SHAPE_NAMES, *(f"{calls}/s" for calls in RATES), *(name for name, _, _ in PAYLOADS)]
    results.table("RSS MiB after the load", cases,
                  lambda proxy, case: results.cell(proxy, case, "rss", 1, 1 / (1 << 20), ratio=False))
    columns = [("settings exchanged", "open"), ("after one call each", "called")]
    results.table(f"RSS bytes an idle connection, of {IDLE}", columns,
                  lambda proxy, column: results.cell(proxy, "idle", column[1], 0))


def scaling(results):
    cases = [case for case in dict.fromkeys(row["case"] for row in results.rows) if "+" in case]
    title = "CPU µs a call with many backends, and with two workers"
    results.table(f"{title} (in parentheses: over the same proxy's usual figure)", cases,
                  lambda proxy, case: scaling_cell(results, proxy, case))


def scaling_cell(results, proxy, case):
    cost, usual = results.get(proxy, case, "us"), results.get(proxy, case.split("+")[0], "us")
    if cost is None:
        return "–"
    text = f"{cost:.2f}" + results.doubt(proxy, case)
    return f"{text} ({cost / usual:.2f})" if usual else text


def goals(results):
    lines = []
    for case, goal in GOALS.items():
        ours, theirs = results.get(OURS, case, "us"), results.get("haproxy", case, "us")
        if ours and theirs:
            reached = "yes" if ours / theirs <= goal else "no"
            lines.append([case, f"{ours / theirs:.2f}", f"{goal:.2f}", reached])
    if lines:
        print("\n### Evenkeel's CPU time over HAProxy's\n")
        print_row(["shape", "is", "goal: at most", "reached"])
        print_row(["---"] * 4)
    for line in lines:
        print_row(line)


def complaints(results):
    """What makes figures doubtful."""
    print()
    failed = [row for row in results.rows if row["failed"]]
    spoilt = [row["foreign"] for row in results.rows if row["foreign"] > SPOILT]
    lost = [row for row in results.rows if row["proxy"] != "direct" and 0 < len(row.get("backends", {})) < 3]
    for row in failed:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in row["failed"].items())
        print(f"FAILED: {row['proxy']} {row['case']}: {reasons}; {row['ok']} calls were right")
    for row in lost:
        print(f"NOT BALANCED: {row['proxy']} {row['case']}: {row['backends']}")
    if not failed:
        print("No call failed.")
    limit = f"more than {SPOILT:.0%} of a core"
    if spoilt:
        print(f"In {len(spoilt)} of {len(results.rows)} measurements other programs took {limit}: "
              f"{median(spoilt):.0%} in the median of these. They count only where there are no others.")
    else:
        print(f"Other programs never took {limit}.")
