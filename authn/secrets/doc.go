// Package secrets reads passwords and keys from where they are kept: the environment, files, and, with package vault,
// HashiCorp Vault or OpenBao. Configuration then holds references, not secrets.
//
//	r, err := secrets.NewResolver(secrets.Config{Sources: map[string]secrets.Source{"vault": vaultClient}})
//	dsn, err := r.Get(ctx, "vault://secret/orders/db#dsn") // or "env:DATABASE_URL", or "file:/run/secrets/dsn"
//	db, err := sqldb.Open(ctx, dsn.Reveal(), sqldb.Config{})
//
// A Secret does not print, log or marshal; errors hold neither secrets nor references, which may have been secrets by
// mistake.
package secrets
