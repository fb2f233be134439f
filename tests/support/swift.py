"""OpenStack Swift with its S3 interface, on a single node: a real server that checks signatures and regions.

On Debian: apt-get install --no-install-recommends swift-proxy swift-account swift-container swift-object memcached
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.servers import PROXY_VARIABLES, S3Server, answers, free_port

KEY, SECRET = "test:tester", "testing"
KINDS = ("object", "container", "account")
_NEEDED = (*(f"swift-{kind}-server" for kind in (*KINDS, "proxy")), "swift-ring-builder", "memcached")
_FILTERS = ("catch_errors", "listing_formats", "bulk", "slo", "dlo", "versioned_writes", "copy")


class Swift(S3Server):
    """Five processes, of which clients speak to the proxy; a bucket named `bucket`."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
        boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
        missing = [program for program in _NEEDED if shutil.which(program) is None]
        if missing:
            pytest.skip(f"OpenStack Swift is not installed: {', '.join(missing)}")
        (folder / "node/sda").mkdir(parents=True)
        try:
            os.setxattr(folder, "user.dumont", b"")
        except OSError as error:
            pytest.skip(f"Swift needs extended attributes: {error.strerror}")
        self._folder = folder
        ports = {kind: free_port() for kind in (*KINDS, "proxy", "memcached")}
        self._configure(ports)
        user = ["-u", getpass.getuser()] if os.geteuid() == 0 else []
        listening = ["-l", "127.0.0.1", "-p", str(ports["memcached"])]
        backs = [["memcached", *user, *listening], *([f"swift-{kind}-server", self._path(kind)] for kind in KINDS)]
        environment = {name: value for name, value in os.environ.items() if name.lower() not in PROXY_VARIABLES}
        self._backs = []
        with (folder / "log").open("ab") as log:
            for command in backs:
                self._backs.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        for kind, process in zip(("memcached", *KINDS), self._backs, strict=True):
            if not answers(ports[kind], process):
                self._stop_backs()
                raise RuntimeError(f"Swift does not start: {(folder / 'log').read_text()[-2000:]}")
        super().__init__(["swift-proxy-server", self._path("proxy")], ports["proxy"], folder)
        try:
            keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", **keys)
            client.create_bucket(Bucket="bucket")
        except BaseException:
            self.stop()
            raise

    def environment(self) -> dict[str, str]:
        return super().environment() | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def stop(self) -> None:
        super().stop()
        self._stop_backs()

    def _stop_backs(self) -> None:
        for process in self._backs:
            process.terminate()
        for process in self._backs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()

    def _path(self, kind: str) -> str:
        return str(self._folder / f"{kind}-server.conf")

    def _configure(self, ports: dict[str, int]) -> None:
        folder = self._folder
        (folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"
            "[storage-policy:0]\nname = one\ndefault = yes\n"
        )
        common = (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nuser = {getpass.getuser()}\nswift_dir = {folder}\n"
            "workers = 1\nlog_level = WARNING\n"
        )
        for kind in KINDS:
            Path(self._path(kind)).write_text(
                f"{common}bind_port = {ports[kind]}\ndevices = {folder}/node\nmount_check = false\n"
                f"disable_fallocate = true\n[pipeline:main]\npipeline = {kind}-server\n"
                f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
            )
            for arguments in (
                ["create", "4", "1", "1"],
                ["add", f"r1z1-127.0.0.1:{ports[kind]}/sda", "1"],
                ["rebalance"],
            ):
                command = ["swift-ring-builder", f"{kind}.builder", *arguments]
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
        Path(self._path("proxy")).write_text(
            f"{common}bind_port = {ports['proxy']}\n[pipeline:main]\n"
            "pipeline = catch_errors cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes proxy-server\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
            f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{ports['memcached']}\n"
            "[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1\n"
            "[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = testing .admin\n"
            + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _FILTERS)
        )
