#!/usr/bin/env python3
"""follow.py GUIDE ROOT DIST MOTO

Follows docs/deployment.md to the letter: each block of the guide that is marked `sh HOST` is run on that host.

The hosts are copies of the root directory ROOT, each booted by systemd-nspawn with a systemd of its own, in network
namespaces that reach each other and nothing else. DIST is what `make dist` packs; MOTO is the program moto_server, which
stands for the object store. A certificate authority that all hosts trust stands for a public one.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# Addresses for documentation (RFC 5737), in namespaces of this run.
HOSTS = {"db": "192.0.2.10", "witness": "192.0.2.20", "monitor": "192.0.2.30"}
STORE = "192.0.2.40"
NAMES = {
    "logs.example.com": HOSTS["db"],
    "witness.example.org": HOSTS["witness"],
    "monitor.example.net": HOSTS["monitor"],
    "s3.example.com": STORE,
}
CERTIFICATES = {"db": "logs.example.com", "witness": "witness.example.org"}
# A host boots, and a block of the guide ends, within so many seconds, also on a busy machine.
BOOT, BLOCK = 120, 300


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def blocks(guide):
    """The blocks of commands, in order: the line where each begins, its host and its text."""
    found, host, text = [], None, []
    for number, line in enumerate(guide.read_text().splitlines(), 1):
        marked = re.fullmatch(r"```sh (\w+)", line)
        if marked:
            host, text, start = marked[1], [], number
        elif line == "```" and host:
            found.append((start, host, "\n".join(text)))
            host = None
        elif host:
            text.append(line)
    known = {*HOSTS, "build", "admin"}
    wrong = {host for _, host, _ in found} - known
    if not found or wrong:
        raise SystemExit(f"{guide}: blocks of unknown hosts {wrong}, or no blocks")
    return found


class Network:
    """A bridge in a namespace of its own, and a namespace for each host, all named after this process."""

    def __init__(self, cleanup):
        self.prefix = f"merkle-log-{os.getpid()}"
        cleanup.callback(self.remove)
        self.add("bridge")
        bridge = self.name("bridge")
        run("ip", "-n", bridge, "link", "add", "lan", "type", "bridge")
        run("ip", "-n", bridge, "link", "set", "lan", "up")
        for host, address in [*HOSTS.items(), ("store", STORE)]:
            self.add(host)
            name = self.name(host)
            run("ip", "-n", bridge, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", bridge, "link", "set", host, "master", "lan", "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")

    def name(self, host):
        return f"{self.prefix}-{host}"

    def add(self, host):
        try:
            run("ip", "netns", "add", self.name(host))
        except SystemExit as error:
            raise SystemExit(
                f"this machine makes no network namespaces, which the test of the guide needs (root with CAP_SYS_ADMIN and CAP_NET_ADMIN): {error}"
            ) from error
        run("ip", "-n", self.name(host), "link", "set", "lo", "up")

    def remove(self):
        for host in ["bridge", "store", *HOSTS]:
            subprocess.run(["ip", "netns", "delete", self.name(host)], stderr=subprocess.DEVNULL)


class Authority:
    def __init__(self, directory):
        self.certificate, self.key = directory / "ca.crt", directory / "ca.key"
        self.directory = directory
        subject = ["-subj", "/CN=Authority of a test", "-days", "2", "-nodes", "-newkey", "rsa:2048"]
        run("openssl", "req", "-x509", *subject, "-keyout", self.key, "-out", self.certificate)

    def sign(self, name):
        key, request, certificate = (self.directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        run("openssl", "req", "-subj", f"/CN={name}", "-nodes", "-newkey", "rsa:2048", "-keyout", key, "-out", request)
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName = DNS:{name}\n")
        signer = ["-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", "2", "-extfile", extensions]
        run("openssl", "x509", "-req", "-in", request, *signer, "-out", certificate)
        return certificate, key


def cgroups():
    """Where systemd-nspawn puts what it boots: the hierarchy of systemd, and the unified one."""
    for line in open("/proc/self/mounts"):
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or kind == "cgroup" and "name=systemd" in options.split(","):
            yield pathlib.Path(where)


class Host:
    def __init__(self, name, directory, lower, network, cleanup):
        self.name, self.root = name, directory / name
        upper, work = directory / f"{name}.upper", directory / f"{name}.work"
        for path in (self.root, upper, work):
            path.mkdir()
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        cleanup.callback(subprocess.run, ["umount", "-l", self.root])
        self.namespace = network.name(name)
        self.cgroups = [path / self.namespace for path in cgroups()]
        self.log = directory / f"{name}.log"

    def boot(self, cleanup):
        for path in self.cgroups:
            path.mkdir(exist_ok=True)
            cleanup.callback(remove_cgroup, path)
        # Two hosts must not share a cgroup, as each one's systemd rules over its own.
        enter = "".join(f"echo $$ >{path}/cgroup.procs && " for path in self.cgroups)
        container = (
            f"exec systemd-nspawn --quiet --register=no --keep-unit --boot --console=pipe -D {self.root} --machine={self.name}"
            f" --network-namespace-path=/run/netns/{self.namespace} --resolv-conf=off --timezone=off"
        )
        self.process = subprocess.Popen(
            ["sh", "-c", enter + container], stdin=subprocess.DEVNULL, stdout=self.log.open("w"), stderr=subprocess.STDOUT
        )
        cleanup.callback(self.stop)
        deadline = time.monotonic() + BOOT
        state = ""
        while state not in ("running", "degraded"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not boot ({state}):\n{self.log.read_text()}")
            time.sleep(0.3)
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if children:
                self.leader = children[0]
                state = self.shell("systemctl is-system-running", 10).stdout.strip()

    def shell(self, script, seconds=BLOCK):
        # As a login of root has it.
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        enter = ["nsenter", "--target", self.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        command = [*enter, "bash", "-euo", "pipefail", "-c", f"cd /srv\n{script}"]
        try:
            return subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            output = "".join((part or b"").decode(errors="replace") for part in (error.stdout, error.stderr))
            return subprocess.CompletedProcess(command, 124, output, f"it did not end in {seconds} s\n")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def remove_cgroup(path):
    """From the innermost out; what is in use goes with its processes."""
    for inner in sorted(path.glob("**/"), reverse=True):
        for _ in range(50):
            try:
                inner.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def store(moto, network, authority, cleanup):
    certificate, key = authority.sign("s3.example.com")
    inside = ["ip", "netns", "exec", network.name("store")]
    server = subprocess.Popen(
        [*inside, moto.with_name("python"), moto, "-H", STORE, "-p", "443", "-s", "-c", certificate, "-k", key],
        # Otherwise moto takes the first part of the host's name for a bucket.
        env={**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    cleanup.callback(lambda: (server.kill(), server.wait()))
    bucket = [*inside, "curl", "-fsS", "--cacert", authority.certificate, "--resolve", f"s3.example.com:443:{STORE}"]
    # Without a signature moto does not know which of Amazon's services is meant.
    bucket += ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "a:b"]
    bucket += ["--retry", "60", "--retry-delay", "1", "--retry-connrefused", "-X", "PUT", "https://s3.example.com/logs"]
    run(*bucket)


def prepare(host, authority, dist):
    """What the guide takes for granted: names, certificates, and what was built."""
    lines = "".join(f"{address} {name}\n" for name, address in NAMES.items())
    (host.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{lines}")
    (host.root / "etc/hostname").write_text(f"{host.name}\n")
    shutil.copy(authority.certificate, host.root / "usr/local/share/ca-certificates/test.crt")
    run("chroot", host.root, "update-ca-certificates")
    shutil.copy(dist, host.root / "srv/merkle_log.tar.gz")
    if host.name in CERTIFICATES:
        name = CERTIFICATES[host.name]
        tls = host.root / "etc/nginx/tls"
        tls.mkdir()
        for path in authority.sign(name):
            shutil.copy(path, tls)
            (tls / path.name).chmod(0o600)


def carry(text, hosts):
    """The administrator's copies between hosts."""
    for line in text.splitlines():
        copied = re.fullmatch(r"scp (\w+):(/\S+) (\w+):(/\S+)", line)
        if not copied:
            raise SystemExit(f"not a copy from host to host: {line}")
        source, path, target, to = copied.groups()
        content = hosts[source].shell(f"cat {path}").stdout
        where = hosts[target].root / to.lstrip("/")
        (where / pathlib.Path(path).name if to.endswith("/") else where).write_text(content)


def follow(guide, hosts):
    for number, name, text in blocks(guide):
        if name == "build":
            continue  # It was built by the test.
        print(f"{guide.name}:{number}: {name}", flush=True)
        if name == "admin":
            carry(text, hosts)
            continue
        done = hosts[name].shell(text)
        if done.returncode != 0:
            journal = hosts[name].shell("journalctl --no-pager -n 60; systemctl --failed --no-pager").stdout
            raise SystemExit(
                f"{guide}:{number} on {name}: exit code {done.returncode}\n{text}\n--- said\n{done.stdout}{done.stderr}--- journal\n{journal}"
            )
        print("".join(f"    {line}\n" for line in (done.stdout + done.stderr).splitlines()), end="", flush=True)


def main():
    guide, root, dist, moto = map(pathlib.Path, sys.argv[1:])
    if os.geteuid() != 0:
        raise SystemExit("only root can boot the hosts of the guide")
    # Whoever ends this, the hosts end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    started = time.monotonic()
    with contextlib.ExitStack() as cleanup:
        # On a disk: what a host writes would fill a /tmp in memory.
        directory = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory(dir=root.parent)))
        network = Network(cleanup)
        authority = Authority(directory)
        store(moto, network, authority, cleanup)
        hosts = {name: Host(name, directory, root, network, cleanup) for name in HOSTS}
        for host in hosts.values():
            prepare(host, authority, dist)
            host.boot(cleanup)
        print(f"booted after {time.monotonic() - started:.0f} s", flush=True)
        follow(guide, hosts)
        for name, host in hosts.items():
            failed = host.shell("systemctl --failed --no-legend --plain").stdout.strip()
            if failed:
                raise SystemExit(f"units of {name} have failed: {failed}")
    print(f"followed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
