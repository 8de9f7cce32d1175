#!/bin/sh
# The main job on the samples, with the embedded PostgreSQL. Run by `make demo`; BIN is the folder of the programs.
set -eu

run() {
    printf '\n$ %s\n' "harborctl $*"
    "$BIN/harborctl" "$@"
}

# Start over, so that the second time shows the same as the first.
"$BIN/harborctl" db destroy --yes --quiet
"$BIN/harborctl" db start --quiet
trap '"$BIN/harborctl" db stop --quiet' EXIT

run load samples/products.csv -t harbor.products
run load samples/variants.csv -t harbor.variants
run load samples/stock_reservations.csv -t harbor.stock_reservations
echo
echo 'The nightly feed: only rows that differ are written.'
run load samples/nightly_variants.csv -t harbor.variants --mode upsert --key sku
run report low_stock
run count harbor.products harbor.variants harbor.stock_reservations --exact

cat <<END

That was a real PostgreSQL, kept in ${HARBORCTL_HOME}. What next?

  . .venv/bin/activate
  export HARBORCTL_HOME=${HARBORCTL_HOME}
  harborctl load your.csv -t harbor.products    load a file of your own
  harborctl report                              the list of reports
  harborctl db psql                             look around
  harborctl load --help                         all that a load can do

To load into your own database: export HARBORCTL_URL=postgresql://user@host/name
END
