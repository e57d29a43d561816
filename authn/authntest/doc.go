// Package authntest checks implementations of authn's ports: the same suite that the stores of this library pass.
//
//	func TestStore(t *testing.T) {
//		authntest.RunTokens(t, func(t *testing.T) authn.TokenStore { return mystore.New(...) })
//	}
package authntest
