#!/usr/bin/env python3
"""Runs a real ClickHouse server for tests and the demo.

    clickhouse_server.py DIR [PORT]

Serves HTTP on 127.0.0.1, at PORT or a free port; prints `ready PORT` and runs
until its standard input is closed. Data are kept in DIR and are there again
after a restart.

The server is the one inside the Python package chdb-core, unpacked by
`cargo xtask setup` into target/tools/chdb; LOCKGATE_CHDB names another place.
"""

import importlib.machinery
import importlib.util
import os
import sys
import threading
from pathlib import Path

CONFIG = """<clickhouse>
  <logger><level>warning</level><log>{dir}/server.log</log><errorlog>{dir}/errors.log</errorlog></logger>
  <listen_host>127.0.0.1</listen_host>
  <http_port>{port}</http_port>
  <users_config>{dir}/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
</clickhouse>
"""

USERS = """<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
    </default>
  </users>
</clickhouse>
"""


def engine():
    root = Path(__file__).resolve().parents[2]
    package = Path(os.environ.get("LOCKGATE_CHDB", root / "target/tools/chdb")) / "chdb"
    found = sorted(package.glob("_chdb*.so"))
    if not found:
        sys.exit(f"no ClickHouse in {package}: run `cargo xtask setup`")
    # The package's own __init__ wants numpy and more; the engine does not.
    loader = importlib.machinery.ExtensionFileLoader("_chdb", str(found[0]))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("_chdb", loader)
    )
    loader.exec_module(module)
    return module


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)
    port = sys.argv[2] if len(sys.argv) == 3 else "0"
    Path("config.xml").write_text(CONFIG.format(dir=directory, port=port))
    Path("users.xml").write_text(USERS.format(dir=directory))
    for leftover in ("stop", "port"):
        Path(leftover).unlink(missing_ok=True)
    # The engine serves for as long as its own query waits for these two: it
    # tells its port through one and ends when the other says something.
    os.mkfifo("stop")
    os.mkfifo("port")

    def announce():
        print("ready", Path("port").read_text().strip(), flush=True)

    def await_end():
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=announce, daemon=True).start()
    threading.Thread(target=await_end, daemon=True).start()
    clickhouse = engine()
    # It says where it logs; nobody asked.
    os.dup2(os.open("stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    clickhouse.query(
        "SYSTEM START LISTEN HTTP;"
        "SELECT getServerPort('http_port') INTO OUTFILE 'port' TRUNCATE FORMAT TabSeparated;"
        "SELECT * FROM file('stop', 'LineAsString', 'line String')",
        "TabSeparated",
        path="data",
    )


if __name__ == "__main__":
    main()
