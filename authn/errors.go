package authn

import (
	"errors"
	"fmt"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrNoToken is returned when a request carries no bearer token.
	ErrNoToken = errors.New("authn: no bearer token")
	// ErrToken is matched by every error about a token that must not be accepted; the error is a *TokenError.
	ErrToken = errors.New("authn: token refused")
	// ErrExpired is matched when a token has expired and is right otherwise.
	ErrExpired = errors.New("authn: token expired")
	// ErrRevoked is matched when the token's id has been revoked.
	ErrRevoked = errors.New("authn: token revoked")
	// ErrForbidden is matched when the caller is known and does not meet a Requirement.
	ErrForbidden = errors.New("authn: the caller may not do this")
	// ErrUnknownKey is returned by a KeySource that has no key of the asked id.
	ErrUnknownKey = errors.New("authn: unknown key")
	// ErrUnavailable is matched when a token cannot be verified now because keys or revocations are out of reach. The
	// caller is not at fault, and the answer is a 503. Such errors have a Temporary() bool, which is true.
	ErrUnavailable error = temporary{}
	// ErrKeyConflict is returned by KeyStore.Save when another process saved first, and by APIKeyStore.Rotate when
	// another caller rotated the key first.
	ErrKeyConflict = errors.New("authn: the keys have been changed by another")
	// ErrWeakKey is matched when a key is too short for its algorithm.
	ErrWeakKey = errors.New("authn: key too short")
	// ErrRefresh is matched by every refusal of a refresh token.
	ErrRefresh = errors.New("authn: refresh token refused")
	// ErrReused is matched when a refresh token was used again after its grace: its whole family is revoked by then.
	// It matches ErrRefresh too.
	ErrReused = fmt.Errorf("%w: used before", ErrRefresh)
	// ErrAPIKey is matched when an API key is malformed, unknown or revoked, or its secret is wrong.
	ErrAPIKey = errors.New("authn: API key refused")
	// ErrClient is returned by TokenEndpointConfig.Client for a client that is unknown or presents a wrong secret.
	ErrClient = errors.New("authn: client refused")
	// ErrScope is returned by TokenEndpointConfig.ClientCredentials when the client may not have a scope it asks for.
	ErrScope = errors.New("authn: scope refused")
	// ErrPassword is returned when a password does not match, also when the user does not exist.
	ErrPassword = errors.New("authn: wrong password")
	// ErrPasswordTooLong is returned for a password longer than the limit. Passwords are never cut.
	ErrPasswordTooLong = errors.New("authn: password too long")
	// ErrHash is returned when a stored password hash is of no known form.
	ErrHash = errors.New("authn: unusable password hash")
)

// TokenError is the reason why a token was refused. Reason is for logs; a client gets no more than Challenge.
type TokenError struct {
	// Reason is a short text without any value of the token.
	Reason string
	// Claim is the name of the claim that is at fault, or empty.
	Claim string
	// Err is a sentinel for the conditions that have one, or nil.
	Err error
}

// Error implements error.
func (e *TokenError) Error() string { return "authn: token refused: " + e.Reason }

// Is makes every TokenError match ErrToken.
func (e *TokenError) Is(target error) bool { return target == ErrToken }

// Unwrap returns the sentinel of the condition.
func (e *TokenError) Unwrap() error { return e.Err }

// Challenge returns the value for WWW-Authenticate (RFC 6750).
func (e *TokenError) Challenge() string { return `Bearer error="invalid_token"` }

func refuse(reason string) error { return &TokenError{Reason: reason} }

// temporary marks errors for packages that do not import this one: the token is not at fault.
type temporary struct{}

func (temporary) Error() string   { return "authn: cannot be verified now" }
func (temporary) Temporary() bool { return true }

// challenged is an error with a challenge that is not about a bad token.
type challenged struct {
	error
	challenge string
}

func (c challenged) Challenge() string { return c.challenge }
func (c challenged) Unwrap() error     { return c.error }

// missing is the error of a request without a token: a challenge without an error code, as RFC 6750 asks.
var missing error = challenged{ErrNoToken, "Bearer"}

// forbidden is the error of a caller without the role.
var forbidden error = challenged{ErrForbidden, `Bearer error="insufficient_scope"`}

// unavailable wraps cause, so that logs show it.
func unavailable(what string, cause error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, cause)
}
