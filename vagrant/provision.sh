#!/usr/bin/env bash
# Makes a Debian 12 host an executor host with lockgate. Can run again.
set -euo pipefail
cd "${1:-/src}"

command -v cargo >/dev/null || { echo "install rustup first, as its documentation says" >&2; exit 1; }
cargo xtask setup
cargo xtask build
install -m 0755 target/release/lockgate /usr/sbin/lockgate
install -D -m 0644 packaging/lockgate.service /etc/systemd/system/lockgate.service
install -D -m 0644 packaging/lockgate.sysusers /usr/lib/sysusers.d/lockgate.conf
install -D -m 0644 packaging/lockgate.tmpfiles /usr/lib/tmpfiles.d/lockgate.conf
command -v systemd-sysusers >/dev/null && systemd-sysusers
command -v systemd-tmpfiles >/dev/null && systemd-tmpfiles --create lockgate.conf
[ -e /etc/lockgate/lockgate.toml ] || lockgate init
lockgate doctor || true
echo "edit /etc/lockgate/lockgate.toml, then: systemctl enable --now lockgate"
