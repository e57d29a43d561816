#!/bin/sh
# Puts the secrets of the folder into a development Vault, which holds them in memory alone.
set -eu
VAULT_TOKEN=$(cat /run/secrets/vault_token)
export VAULT_TOKEN
vault kv put -mount=secret shop/common service_secret=@/run/secrets/service_secret broker=@/run/secrets/broker >/dev/null
for service in users products orders inventory payments notifications; do
	vault kv put -mount=secret "shop/$service" "db=@/run/secrets/${service}_db" >/dev/null
done
echo "vault: the shop's secrets are in it"
