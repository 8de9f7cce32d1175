#!/bin/sh
# The main job on the samples, with the embedded PostgreSQL. Run by `make demo` in the checkout; BIN is the folder of the
# programs. `demo.sh clean` removes the database that it has made.
set -eu

# The demonstration has a database of its own, and no way to any other.
for name in $(env | sed -nE 's/^((PG|HARBORCTL_)[A-Za-z0-9_]*|DATABASE_URL)=.*/\1/p'); do
    unset "$name"
done
HARBORCTL_HOME=$PWD/.demo
export HARBORCTL_HOME

# Not by its script, which names its interpreter by a path: a shell reads that, and knows no folder with a $ in it.
harborctl() {
    "$BIN/python" -m harborctl "$@"
}

if [ "${1-}" = clean ]; then
    if [ -x "$BIN/python" ]; then
        # What is installed names the folder that the checkout was in when it was set up.
        PYTHONPATH=src harborctl db destroy --yes --quiet
    elif [ -e .demo/postgres/postmaster.pid ]; then
        echo 'error: the server of .demo may be running, and nothing here can stop it: run make demo, then make clean' >&2
        exit 1
    fi
    rm -rf .demo
    exit
fi

run() {
    printf '\n$ %s\n' "harborctl $*"
    harborctl "$@"
}

# Start over, so that the second time shows the same as the first.
trap 'harborctl db stop --quiet' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
harborctl db destroy --yes --quiet >/dev/null
harborctl db start --quiet
# A harborctl.toml that lies here may name another database: what is said goes first.
HARBORCTL_URL=$(harborctl db url)
export HARBORCTL_URL

echo
echo 'A file becomes a table:'
run load samples/products.csv -t my_products --create --key id
echo
echo 'Tables that are there:'
run load samples/products.csv -t harbor.products
run load samples/variants.csv -t harbor.variants
run load samples/stock_reservations.csv -t harbor.stock_reservations
echo
echo 'The nightly feed: only rows that differ are written.'
run load samples/nightly_variants.csv -t harbor.variants --mode upsert --key sku
run report low_stock
run count harbor.products harbor.variants harbor.stock_reservations --exact

quoted=$(printf '%s' "$HARBORCTL_HOME" | sed "s/'/'\\\\''/g")
cat <<END

That was a real PostgreSQL, kept in ${HARBORCTL_HOME} until make demo starts over. What next?

  . .venv/bin/activate
  export HARBORCTL_HOME='${quoted}'
  harborctl load your.csv --create              make a table of a file of your own
  harborctl report                              the list of reports
  harborctl db psql                             look around
  harborctl load --help                         all that a load can do

To load into your own database: export HARBORCTL_URL=postgresql://user@host/name
END
