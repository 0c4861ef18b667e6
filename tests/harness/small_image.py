"""A container root of a few files: busybox, a `train` script, the static responder as `serve`, a clock as `stamp`."""
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRAIN = r"""#!/bin/sh
# Writes what it read to the model, so that a test can follow data through the job. Hyperparameters: `lines` to print,
# `pause` after each, `seconds` to sleep.
set -e
value() { sed -n 's/.*"'"$1"'": *"\([0-9.]*\)".*/\1/p' /opt/ml/input/config/hyperparameters.json | grep . || echo 0; }
echo "loss=0.5;"
cat /opt/ml/input/data/*/* > /opt/ml/model/seen 2>/dev/null || true
lines=$(value lines) pause=$(value pause) line=0
while [ "$line" -lt "$lines" ]; do
  echo "line $line"
  line=$((line + 1))
  [ "$pause" = 0 ] || sleep "$pause"
done
sleep "$(value seconds)"
echo done
"""


def small_rootfs(directory):
    """Builds the root below `directory` and returns its path."""
    root = Path(directory) / "small-rootfs"
    for folder in ("bin", "usr/bin", "proc", "sys", "dev", "tmp", "etc", "opt/ml"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for tool in ("sh", "cat", "sleep", "sed", "grep", "echo", "true", "ls", "id", "wget", "nc", "ps", "mount"):
        link = root / "bin" / tool
        if not link.is_symlink():
            link.symlink_to("busybox")
    (root / "usr/bin/train").write_text(TRAIN)
    (root / "usr/bin/train").chmod(0o755)
    for program, source in (("serve", "responder.c"), ("stamp", "stamp.c")):
        subprocess.run(["gcc", "-O2", "-static", "-o", str(root / "usr/bin" / program), str(HERE / source)], check=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    for name in ("resolv.conf", "hosts", "hostname", "group"):
        (root / "etc" / name).touch()
    return root
