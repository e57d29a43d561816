#!/bin/sh
# Makes the secrets of a local shop in the folder secrets/, which git ignores: random passwords, and the DSNs that hold
# them. What exists is kept, so a second run changes nothing.
#
# The folder is its owner's alone. The files in it can be read by anybody who gets there, as they must: compose mounts them
# one by one, and the users in the containers are not the one who owns them here.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
umask 022

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# secret NAME TEXT: a file, unless it is there.
secret() { [ -s "secrets/$1" ] || printf '%s' "$2" >"secrets/$1"; }
# value NAME: what is in it.
value() { cat "secrets/$1"; }

for name in service_secret rabbitmq_password postgres_password mongodb_password mongodb_key grafana_password vault_token; do
	secret $name "$(random)"
done

secret broker "amqp://shop:$(value rabbitmq_password)@rabbitmq:5672/"
secret rabbitmq_user.conf "default_user = shop
default_pass = $(value rabbitmq_password)
"

secret users_password "$(random)"
secret users_db "mongodb://users:$(value users_password)@mongodb:27017/users?replicaSet=rs0"
for service in products orders inventory payments notifications; do
	secret ${service}_password "$(random)"
	secret ${service}_db "postgres://$service:$(value ${service}_password)@postgres:5432/$service?sslmode=disable"
done

# With the profile vault the services read all of it from Vault instead: references, and the token that opens it.
secret vault.env "VAULT_ADDR=http://vault:8200
VAULT_TOKEN=$(value vault_token)
SERVICE_SECRET=vault://secret/shop/common#service_secret
BROKER=vault://secret/shop/common#broker
USERS_DB=vault://secret/shop/users#db
PRODUCTS_DB=vault://secret/shop/products#db
ORDERS_DB=vault://secret/shop/orders#db
INVENTORY_DB=vault://secret/shop/inventory#db
PAYMENTS_DB=vault://secret/shop/payments#db
NOTIFICATIONS_DB=vault://secret/shop/notifications#db
"

echo "secrets: in $(pwd)/secrets"
