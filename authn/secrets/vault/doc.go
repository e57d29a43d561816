// Package vault is a thin client of HashiCorp Vault and OpenBao: logins, and the KV store of version 2.
//
//	v, err := vault.New(vault.Config{Auth: vault.AppRole(roleID, secretID)}) // the address from VAULT_ADDR
//	defer v.Close()
//	data, err := v.Read(ctx, "secret", "orders/db")
//	password, ok := data.Get("password")
//	dsn, err := v.Get(ctx, "vault://secret/orders/db#dsn") // a secrets.Source
//
// # Guarantees
//
//   - It logs in when it is first needed, renews the token at two thirds of its life, and logs in again when it cannot
//     be renewed or is refused. Many calls at once make one login.
//   - 5xx, 429 and broken connections are tried again, with growing pauses, within the context.
//   - Errors are *Error, under errors.Is ErrNotFound, ErrDenied, ErrConflict or ErrUnavailable. They hold no token, no
//     value and nothing of what the server wrote. Values do not print.
//   - Reads are cached for Config.CacheFor. Write forgets what it replaces.
//
// # What it does not do
//
// It knows no dynamic secrets, no leases but its own token's, and no other engine.
package vault
