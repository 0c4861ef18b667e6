"""The commands an operator starts without a server: is the host fit, how is a command used, what completes it."""
import json
import re
import subprocess

import pytest


def doctor(engine, *arguments):
    done = engine.run("doctor", "--json", *arguments, check=False)
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


def test_the_doctor_finds_this_host_fit_and_a_broken_runtime_not(engine):
    code, checks = doctor(engine)
    assert code == 0 and len(checks) == 13, checks
    assert all(check["outcome"] in ("ok", "reduced") for check in checks.values()), checks
    for needed in ("root", "OCI runtime", "a container", "packet filter", "sealed network"):
        assert checks[needed]["outcome"] == "ok", checks[needed]
    assert checks["port"]["outcome"] == "reduced" or "free" in checks["port"]["text"]
    code, checks = doctor(engine, "--set", "runtime.oci=/bin/false")
    assert code == 1
    assert checks["OCI runtime"]["outcome"] == "missing" and "Install the package crun or runc" in checks["OCI runtime"]["text"]
    assert checks["sealed network"]["outcome"] == "ok", "the others are still looked at"
    lines = engine.run("doctor", "--set", "runtime.oci=/bin/false", check=False)
    assert lines.returncode == 1 and re.search(r"^MISSING OCI runtime", lines.stdout, re.M), lines.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_commands(engine, shell):
    script = subprocess.run([engine.binary, "completion", shell], text=True, capture_output=True, check=True).stdout
    assert all(word in script for word in ("serve", "doctor", "audit-log", "--data-dir" if shell != "fish" else "data-dir"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_command_has_help_that_names_the_exit_codes(engine):
    def shown(*words):
        return subprocess.run([engine.binary, *words, "--help"], text=True, capture_output=True, check=True).stdout

    seen, waiting = [], [()]
    while waiting:
        words = waiting.pop()
        text = shown(*words)
        assert re.search(r"^  3  no running server", text, re.M), (words, text)
        commands = re.search(r"^Commands:\n((?:  .*\n)+)", text, re.M)
        if commands:
            waiting += [(*words, name) for name in re.findall(r"^  ([a-z][\w-]*)", commands.group(1), re.M) if name != "help"]
        seen.append(" ".join(words))
    assert {"serve", "doctor", "report", "image pack", "account create", "audit-log verify"} <= set(seen), seen
