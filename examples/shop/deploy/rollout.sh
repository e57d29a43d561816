#!/usr/bin/env bash
# Deploys the overlay $OVERLAY with the image's tag $TAG, waits for the roll-out, plays the demonstration against $GATEWAY
# and goes back to what ran before when any of it fails. Uses kubectl with its KUBECONFIG, and the program $SHOP.
set -euo pipefail
: "${OVERLAY:?}" "${TAG:?}" "${GATEWAY:?}" "${SHOP:?}"
IMAGE=${IMAGE:-ghcr.io/sillar-go/sillar-shop}
NAMESPACE=${NAMESPACE:-shop}
WAIT=${WAIT:-10m}
services="users products orders inventory payments notifications gateway"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kubectl kustomize "$OVERLAY" >"$work/all.yaml"
sed -E "s|^( *(- )?image: )$IMAGE(:.*)?\$|\1$IMAGE:$TAG|" "$work/all.yaml" >"$work/new.yaml"
grep -q "image: $IMAGE:$TAG\$" "$work/new.yaml" || { echo "rollout: $OVERLAY has no image $IMAGE" >&2; exit 1; }

# What runs now: the last revision of each Deployment, none where the shop is new.
for s in $services; do
  kubectl -n "$NAMESPACE" get deployment "shop-$s" -o 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}' \
    >"$work/$s" 2>/dev/null || : >"$work/$s"
done

back() {
  echo "rollout: failed; going back" >&2
  trap 'rm -rf "$work"' EXIT
  for s in $services; do
    revision=$(cat "$work/$s")
    [ -n "$revision" ] || { echo "rollout: shop-$s is new and stays" >&2; continue; }
    now=$(kubectl -n "$NAMESPACE" get deployment "shop-$s" -o 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}')
    [ "$now" = "$revision" ] || kubectl -n "$NAMESPACE" rollout undo "deployment/shop-$s" --to-revision="$revision" ||
      echo "rollout: shop-$s could not go back to revision $revision" >&2
  done
  for s in $services; do
    kubectl -n "$NAMESPACE" rollout status "deployment/shop-$s" --timeout="$WAIT" || :
  done
  exit 1
}

kubectl apply -f "$work/new.yaml" || back
for s in $services; do
  kubectl -n "$NAMESPACE" rollout status "deployment/shop-$s" --timeout="$WAIT" || back
done
"$SHOP" demo --gateway "$GATEWAY" --faults=false || back # SHOP_ADMIN_PASSWORD is its administrator's
echo "rollout: $TAG runs in $NAMESPACE"
