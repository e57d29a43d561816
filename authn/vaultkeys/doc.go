// Package vaultkeys keeps signing keys in Vault's or OpenBao's KV store, shared by replicas and never on a disk of
// theirs.
//
//	keys, err := authn.NewKeySet(vaultkeys.Must(vaultkeys.New(client, "secret", "shop/signing-keys")), authn.KeyConfig{})
//
// Replicas that write at once are told apart by the store's check-and-set. The policy needs create, read and update on
// <mount>/data/<path>.
package vaultkeys
