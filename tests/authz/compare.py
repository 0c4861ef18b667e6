#!/usr/bin/env python3
"""Asks public evaluators the generated cases and shows where they answer otherwise than the engine.

None of them is right everywhere, so nothing fails here by itself: the table shows each one's disagreements by family, and those
cases in which every evaluator that answered disagrees. Such a case is settled from AWS's documentation and becomes a row of
crates/core/policy/tests/cases/adjudicated.json.

Needs cargo, node and npm; installs into the cache (ISOLARIUM_CACHE) and changes nothing in the repository.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("ISOLARIUM_CACHE", pathlib.Path.home() / ".cache/isolarium")) / "authz"
SIMULATOR = "@cloud-copilot/iam-simulate@0.1.173"


def run(*command, text=None, **options):
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True, **options).stdout


def main():
    CACHE.mkdir(parents=True, exist_ok=True)
    cases = run("cargo", "run", "-q", "--locked", "-p", "isolarium-policy", "--example", "cases", cwd=ROOT)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(CACHE / "target")}
    oracles = run(
        "cargo", "run", "-q", "--locked", "--manifest-path", ROOT / "tests/authz/oracles/Cargo.toml", text=cases, env=environment
    )
    if not (CACHE / "node_modules/@cloud-copilot/iam-simulate").exists():
        run("npm", "install", "--no-audit", "--no-fund", "--prefix", CACHE, SIMULATOR)
    simulated = run("node", ROOT / "tests/authz/simulate.mjs", CACHE, text=cases)

    asked, differ = collections.Counter(), collections.defaultdict(collections.Counter)
    alone = []
    for case, oracle, simulator in zip(cases.splitlines(), oracles.splitlines(), simulated.splitlines(), strict=True):
        case = json.loads(case)
        ours = "allow" if case["engine"] == "allow" else "deny"
        said = {**json.loads(oracle), **json.loads(simulator)}
        answers = {name: answer for name, answer in said.items() if answer in ("allow", "deny")}
        for name, answer in answers.items():
            asked[name] += 1
            differ[name][case["case"]["family"]] += answer != ours
        if len(answers) >= 2 and ours not in answers.values():
            alone.append({"engine": case["engine"], **said, "case": case["case"]})
    for name in sorted(asked):
        families = {family: count for family, count in differ[name].items() if count}
        print(f"{name}: {asked[name]} cases, {sum(families.values())} answered otherwise: {families}")
    print(f"{len(alone)} cases in which two or more evaluators answer, all otherwise")
    for row in alone:
        row["case"] = {key: value for key, value in row["case"].items() if value not in (None, [], {}, False)}
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
