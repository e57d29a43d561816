#!/bin/bash
# Members of a replica set know each other by a key, and MongoDB wants the file with it to be its own alone.
set -eu
install -m 400 -o mongodb -g mongodb /run/secrets/mongodb_key /tmp/key
exec docker-entrypoint.sh mongod --replSet rs0 --keyFile /tmp/key --bind_ip_all --wiredTigerCacheSizeGB 0.25
