package authn

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/internal/jsoncheck"
)

// encodeClaims returns the JSON of claims. check reads it as a Verifier does, and returns an error for what a Verifier
// would refuse.
func encodeClaims(claims map[string]any, check func(payload string) error) (encodedClaims, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("authn: issue: encode the claims: %w", err)
	}
	if jsoncheck.ReplacedUTF8(payload) {
		return nil, errors.New("authn: issue: a claim contains invalid UTF-8")
	}
	if err := check(string(payload)); err != nil { // not wrapped: it is no error about a token that a client sent
		return nil, fmt.Errorf("authn: issue: verifiers would refuse the claims (names must differ in more than case, and "+
			"values be nested at most %d deep): %s", maxDepth, err.Error())
	}
	return encodedClaims(payload), nil
}

// encodedClaims are claims that have been encoded and checked: what is signed is what was checked.
type encodedClaims json.RawMessage

// MarshalJSON implements json.Marshaler.
func (c encodedClaims) MarshalJSON() ([]byte, error) { return c, nil }

// The methods of jwt.Claims, which signing does not call.

// GetExpirationTime implements jwt.Claims.
func (encodedClaims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuedAt implements jwt.Claims.
func (encodedClaims) GetIssuedAt() (*jwt.NumericDate, error) { return nil, nil }

// GetNotBefore implements jwt.Claims.
func (encodedClaims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuer implements jwt.Claims.
func (encodedClaims) GetIssuer() (string, error) { return "", nil }

// GetSubject implements jwt.Claims.
func (encodedClaims) GetSubject() (string, error) { return "", nil }

// GetAudience implements jwt.Claims.
func (encodedClaims) GetAudience() (jwt.ClaimStrings, error) { return nil, nil }
