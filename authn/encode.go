package authn

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/internal/jsoncheck"
)

// encodeClaims returns the JSON of claims, or an error when a Verifier would refuse it.
func encodeClaims(claims map[string]any) (encodedClaims, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("authn: issue: encode the claims: %w", err)
	}
	if jsoncheck.ReplacedUTF8(payload) {
		return nil, errors.New("authn: issue: a claim contains invalid UTF-8")
	}
	if _, err := strictObject(string(payload)); err != nil {
		return nil, fmt.Errorf("authn: issue: verifiers would refuse the claims: names must differ in more than case, "+
			"and values be nested at most %d deep: %w", maxDepth, err)
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
