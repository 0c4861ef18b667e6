"""Two containers on podman's bridge network: the peer of an interface in a VPC. Everything stands in a network namespace of its
own, so that neither the bridge nor podman's rules touch the machine's."""
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# crun refuses a hybrid cgroup layout; podman gets the same way round it as the engine's shim. The leases of addresses and the
# names of namespaces, which podman keeps at fixed places, are ours alone.
WRAP = """
umount /sys/fs/cgroup/unified 2>/dev/null
for place in /var/lib/cni /run/netns; do
  mkdir -p "$place" "$0$place"
  mount --bind "$0$place" "$place"
done
exec "$@"
"""
BY_HAND = "bridge and masquerade by hand, as podman's"


class Bridge:
    """`client` and `server` are paths of the two namespaces, `address` is the server's, `name` says what was built."""

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="isolarium-bridge-", dir="/var/tmp"))
        self.spaces = [f"isolarium-br-{os.getpid()}"]
        try:
            self._space(self.spaces[0])
            try:
                self._podman()
                self.name = "podman's bridge network"
            except (subprocess.CalledProcessError, FileNotFoundError, ValueError) as error:
                self.why = getattr(error, "stderr", None) or str(error)
                self._by_hand()
                self.name = BY_HAND
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        base = self._base()
        if (self.directory / "storage").exists():
            subprocess.run([*base, "rm", "-f", "-t", "0", "-a"], check=False, capture_output=True)
            subprocess.run([*base, "system", "reset", "--force"], check=False, capture_output=True)
            # Each container's monitor starts one more podman when it ends, which writes there.
            for _ in range(100):
                if not self._mentioned():
                    break
                time.sleep(0.1)
        for space in reversed(self.spaces):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _mentioned(self):
        """Whether a process was started with our directory."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.directory).encode() in path.read_bytes():
                    return True
            except OSError:
                continue
        return False

    @staticmethod
    def _space(name):
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)

    def _base(self):
        at = self.directory
        return [
            "nsenter", f"--net=/run/netns/{self.spaces[0]}", "unshare", "-m", "--propagation", "slave", "sh", "-c", WRAP, str(at / "places"), "podman", "--root", f"{at}/storage", "--runroot", f"{at}/run",
            "--tmpdir", f"{at}/tmp", "--network-config-dir", f"{at}/networks", "--cgroup-manager=cgroupfs",
        ]

    def _podman(self):
        root = self.directory / "root"
        for folder in ("bin", "etc", "proc", "dev", "sys"):
            (root / folder).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        archive = self.directory / "image.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        told = {"check": True, "capture_output": True, "text": True}
        subprocess.run([*self._base(), "import", str(archive), "bench:1"], **told)
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        found = []
        for name in ("client", "server"):
            subprocess.run([*self._base(), "run", "-d", "--name", name, "--network", "podman", *limits, "bench:1", "/bin/busybox", "sleep", "3600"], **told)
            form = "{{.State.Pid}} {{.NetworkSettings.Networks.podman.IPAddress}}"
            shown = subprocess.run([*self._base(), "inspect", "-f", form, name], **told).stdout.split()
            path = f"/proc/{int(shown[0])}/ns/net"
            # The address as the container has it: podman cannot always tell it from outside its mount namespace.
            shown = subprocess.run(["nsenter", f"--net={path}", "ip", "-4", "-o", "addr", "show", "dev", "eth0"], **told).stdout
            found.append((path, shown.split()[3].split("/")[0]))
        self.client, (self.server, self.address) = found[0][0], found[1]

    def _by_hand(self):
        host = self.spaces[0]
        run = lambda *command: subprocess.run(command, check=True)
        run("ip", "-n", host, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", host, "addr", "add", "10.88.0.1/16", "dev", "bridge")
        run("ip", "-n", host, "link", "set", "bridge", "up")
        for n in (2, 3):
            space = f"{host}-{n}"
            self.spaces.append(space)
            self._space(space)
            run("ip", "-n", host, "link", "add", f"veth{n}", "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "-n", host, "link", "set", f"veth{n}", "master", "bridge", "up")
            run("ip", "-n", space, "addr", "add", f"10.88.0.{n}/16", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
        rules = """
            add table ip filter
            add chain ip filter forward { type filter hook forward priority 0; policy accept; }
            add rule ip filter forward ip daddr 10.88.0.0/16 ct state related,established counter accept
            add rule ip filter forward ip saddr 10.88.0.0/16 counter accept
            add table ip nat
            add chain ip nat post { type nat hook postrouting priority 100; policy accept; }
            add rule ip nat post ip saddr 10.88.0.0/16 ip daddr != 10.88.0.0/16 counter masquerade
        """
        subprocess.run(["nsenter", f"--net=/run/netns/{host}", "nft", "-f", "-"], input=rules, text=True, check=True)
        self.client, self.server, self.address = f"/run/netns/{host}-2", f"/run/netns/{host}-3", "10.88.0.3"
