#!/usr/bin/env bash
# A local cluster in one command: kind, the image that is built here, the dev overlay, and the demonstration against it.
#
#   ./kind.sh                         makes the cluster sillar-shop, or brings the shop in it up to date
#   ./kind.sh delete-pod-under-load   deletes the pod of inventory while orders are placed; all must hold
#   ./kind.sh down                    deletes the cluster
#
# Needs docker, kind, kubectl and Go.
set -euo pipefail
cd "$(dirname "$0")"
cluster=sillar-shop
namespace=shop-dev
folder=secrets
kubectl() { command kubectl --context "kind-$cluster" "$@"; }

# forward runs a command with the gateway at 127.0.0.1:18080.
forward() {
  kubectl -n $namespace port-forward service/shop-gateway 18080:8080 >/dev/null &
  local pid=$!
  trap "kill $pid 2>/dev/null || :" EXIT
  for _ in $(seq 50); do
    curl -fsS -o /dev/null http://127.0.0.1:18080/health 2>/dev/null && break
    sleep 0.2
  done
  "$@"
}

case ${1:-up} in
up)
  for tool in docker kind kubectl go; do
    command -v $tool >/dev/null || { echo "kind.sh: $tool is missing" >&2; exit 1; }
  done
  kind get clusters | grep -qx $cluster || kind create cluster --name $cluster --wait 120s
  docker build -f Dockerfile -t sillar-shop:dev ../../..
  kind load docker-image --name $cluster sillar-shop:dev
  ./secrets.sh
  kubectl create namespace $namespace --dry-run=client -o yaml | kubectl apply -f -
  kubectl -n $namespace create secret generic shop-common --from-file=service-secret=$folder/service_secret \
    --from-file=broker=secrets/broker --dry-run=client -o yaml | kubectl apply -f -
  kubectl -n $namespace create secret generic shop-rabbitmq --from-file=user.conf=secrets/rabbitmq_user.conf \
    --dry-run=client -o yaml | kubectl apply -f -
  kubectl apply -k kubernetes/overlays/dev
  kubectl -n $namespace rollout restart deployment -l app.kubernetes.io/part-of=shop # the tag of the image is the same
  for deployment in rabbitmq shop-users shop-products shop-orders shop-inventory shop-payments shop-notifications shop-gateway; do
    kubectl -n $namespace rollout status deployment/$deployment --timeout=5m
  done
  forward go run .. demo --gateway http://127.0.0.1:18080
  ;;
delete-pod-under-load)
  # Sagas wait for a service that restarts; load fails when an order is lost or an invariant is broken.
  (sleep 5 && kubectl -n $namespace delete pod -l app.kubernetes.io/name=inventory --wait=false) &
  forward go run .. load --gateway http://127.0.0.1:18080 --orders 300 --concurrency 8
  ;;
down)
  kind delete cluster --name $cluster
  ;;
*)
  sed -n '2,8p' "$0"
  exit 2
  ;;
esac
