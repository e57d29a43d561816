// Package vaultkeys keeps signing keys in the KV store of Vault or OpenBao, where replicas share them without a disk of
// their own.
//
//	keys, err := authn.NewKeySet(vaultkeys.Must(vaultkeys.New(client, "secret", "shop/signing-keys")), authn.KeyConfig{})
//
// Of replicas that write at the same time one wins, by the check-and-set of the store. The policy needs create, read
// and update on <mount>/data/<path>.
package vaultkeys
