package authn

// Must returns v, or panics with err when it is not nil. It wraps the constructors of this package in programs and
// tests that cannot continue without the value: authn.Must(authn.NewVerifier(keys, cfg)).
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
