#!/bin/sh
# Installs what a bare Debian 12 or Ubuntu lacks to build, run and test Stentor,
# saying what; does nothing where all is there. Uses sudo unless root.
#
#   deploy/setup.sh [build]    build: only what `make` needs
set -eu

build="gcc libc6-dev make pkg-config git
libuv1-dev libnng-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler
protobuf-compiler libprotobuf-dev node-llhttp libjansson-dev libcyaml-dev libyaml-dev
libssl-dev zlib1g-dev libcurl4-openssl-dev liblmdb-dev libhiredis-dev libcjose-dev"
test="curl ca-certificates iproute2 libcmocka-dev redis-server redis-tools
haproxy
libfaketime python3 python3-grpcio python3-protobuf python3-pytest python3-pytest-xdist
python3-pytest-timeout python3-selenium python3-h2 python3-yaml
nodejs npm openssl chromium chromium-driver"
case ${1:-} in
build) packages=$build ;;
*) packages="$build $test" ;;
esac

missing=
for package in $packages; do
	case $package in
	# Any node and npm will do, wherever they came from.
	nodejs) command -v node >/dev/null 2>&1 && continue ;;
	npm) command -v npm >/dev/null 2>&1 && continue ;;
	esac
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
		grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing with apt:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
