"""`python -m bench [start | requests | watches | probes | databases] …`: figures of what is named, or of all.

Absolute figures hold for one machine at one moment; the ratios are what to compare. Everything listens on loopback.
"""

import argparse
import json

from bench import DETAIL, Figures, databases, probes, requests, start, watches

WHAT = ["start", "requests", "watches", "probes", "databases"]


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=WHAT, metavar="WHAT")
    parser.add_argument("--runs", type=int, default=3, help="of each; they are interleaved, and the median counts")
    parser.add_argument("--count", type=int, default=3000, help="requests in a run")
    parser.add_argument("--at-once", type=int, default=10, help="requests under way at a time")
    parser.add_argument("--watches", type=int, default=200, help="open beside the writes")
    parser.add_argument(
        "--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the event loop of all clients"
    )
    parser.add_argument("--kube", action="store_true", help="requests to a real kube-apiserver too; built if need be")
    parser.add_argument("--keys", type=int, default=5000, help="queued while probes are asked")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which probes are asked")
    parser.add_argument("--databases", type=int, default=50, help="that are looked at in a run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: Figures = {}
    for what in options.what:
        if what == "start":
            found |= start.figures(options.runs)
        elif what == "requests":
            found |= requests.figures(
                options.runs, count=options.count, at_once=options.at_once, loop=options.loop, kube=options.kube
            )
        elif what == "watches":
            found |= watches.figures(options.runs, count=options.count, watches=options.watches, loop=options.loop)
        elif what == "probes":
            found |= probes.figures(keys=options.keys, seconds=options.seconds)
        elif what == "databases":
            found |= databases.figures(options.runs, count=options.databases)
        else:
            parser.error(f"{what!r} can't be measured; {', '.join(WHAT)} can")
    if options.json:
        print(json.dumps(found))
        return
    width = max(len(name) for name in found if DETAIL not in name)
    for name, value in found.items():
        shown = "missing" if value is None else f"{value:.2f}"
        detail = name.partition(DETAIL)[2]
        print(f"   {detail} {shown}" if detail else f"\n{name:<{width}} {shown:>8}", end="")
    print()


main()
