#!/bin/sh
# Builds Citus and TimescaleDB from their sources and installs them beside Debian's PostgreSQL (as root, once):
#     tests/engines/build.sh CITUS_SOURCES TIMESCALEDB_SOURCES
# Tested with github.com/citusdata/citus at v13.2.0, github.com/timescale/timescaledb at 2.22.1, and PostgreSQL 15; on two
# cores it takes about ten minutes. PG_CONFIG names another PostgreSQL.
set -eu
citus=$1 timescaledb=$2
pg_config=${PG_CONFIG:-pg_config}
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get install -y build-essential cmake flex bison "postgresql-server-dev-$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" \
        libkrb5-dev liblz4-dev libpam0g-dev libreadline-dev libselinux1-dev libssl-dev libxslt1-dev libzstd-dev zlib1g-dev
fi
cd "$citus"
./configure PG_CONFIG="$pg_config" --without-libcurl
make -s -j2 with_llvm=no
make -s with_llvm=no install
cd "$timescaledb"
cmake -B build -DPG_CONFIG="$(command -v "$pg_config")" -DCMAKE_BUILD_TYPE=Release -DREGRESS_CHECKS=OFF \
    -DWARNINGS_AS_ERRORS=OFF -DGENERATE_DOWNGRADE_SCRIPT=OFF
make -C build -j2
make -C build install
