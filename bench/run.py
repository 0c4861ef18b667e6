#!/usr/bin/env python3
"""Every benchmark against its peer or floor in the same run. Writes bench/results.json.

Rows: {name, unit, ours, reference, reference_name, ratio, budget, within}. `ratio` is ours / reference; `budget` says what
it must keep to, such as "<= 2.5"; a row without a reference is reported, not judged. Started by ./x bench.
"""
import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import authorization, capacity, fleet, invoke, launch, names, network, peers, requests, s3, staging, startup, transform, variants  # noqa: E402
from bench.processes import favour  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
SUITES = {"launch": launch, "requests": requests, "invoke": invoke, "variants": variants, "authorization": authorization, "staging": staging, "s3": s3, "startup": startup, "names": names, "network": network, "fleet": fleet, "queue": capacity, "peers": peers, "transform": transform}


def judged(row):
    """Adds ratio and verdict to a row of a suite."""
    reference, budget = row.get("reference"), row.get("budget")
    row["ratio"] = round(row["ours"] / reference, 4) if reference else None
    row["within"] = None
    if budget and row["ratio"] is not None:
        sign, bound = budget.split()
        row["within"] = row["ratio"] <= float(bound) if sign == "<=" else row["ratio"] >= float(bound)
    for key in ("reference", "reference_name", "budget"):
        row.setdefault(key, None)
    return {key: row[key] for key in ("name", "unit", "ours", "reference", "reference_name", "ratio", "budget", "within")}


def show(row):
    verdict = {True: "within", False: "OVER", None: ""}[row["within"]]
    against = f"{row['reference_name']} {row['reference']:.4g} ratio {row['ratio']:.3g} (budget {row['budget']})" if row["reference"] else ""
    print(f"{row['name']:56} {row['ours']:10.4g} {row['unit']:8} {against} {verdict}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and smaller data: some five minutes")
    parser.add_argument("--only", choices=SUITES, action="append", help="run these suites alone")
    parser.add_argument("--binary", default=str(REPOSITORY / "target/release/isolarium"))
    parser.add_argument("--output", default=str(REPOSITORY / "bench/results.json"))
    arguments = parser.parse_args()
    cache = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium"))
    favour("self")
    rows, failed, broken = [], [], []
    for name in arguments.only or SUITES:
        started = time.monotonic()
        print(f"==> {name}", file=sys.stderr)
        try:
            for row in SUITES[name].run(arguments.binary, cache, arguments.quick):
                row = judged(row)
                rows.append(row)
                show(row)
                if row["within"] is False:
                    failed.append(row["name"])
        except Exception as error:  # One suite that cannot be measured, on a busy machine say, does not take the others along.
            traceback.print_exc()
            broken.append(f"{name}: {error}")
        print(f"    {time.monotonic() - started:.0f} s", file=sys.stderr)
    Path(arguments.output).write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{len(rows)} rows, {len(failed)} over budget; load {os.getloadavg()[0]:.1f}; median of repetitions throughout")
    for suite in broken:
        print(f"not measured: {suite}")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
