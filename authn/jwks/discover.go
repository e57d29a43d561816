package jwks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// discover returns the jwks_uri of the issuer.
func (s *Set) discover(ctx context.Context) (string, error) {
	var failed []error
	for _, at := range metadataURLs(s.issuer) {
		data, err := s.get(ctx, at, "application/json")
		if err != nil {
			failed = append(failed, err)
			continue
		}
		uri, err := s.readMetadata(data)
		if err == nil {
			return uri, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", at, err))
	}
	return "", fmt.Errorf("jwks: discover the key set of %s: %w", s.shown, errors.Join(failed...))
}

// metadataURLs are where an issuer publishes its metadata: OpenID Connect appends to the issuer, RFC 8414 puts the name
// between host and path.
func metadataURLs(issuer string) []string {
	all := []string{strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"}
	if u, err := url.Parse(issuer); err == nil {
		u.Path = "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/")
		all = append(all, u.String())
	}
	return all
}

func (s *Set) readMetadata(data []byte) (string, error) {
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", errors.New("not a JSON object")
	}
	if doc.Issuer != s.issuer { // RFC 8414, section 3.3
		return "", fmt.Errorf("metadata of the issuer %q, want %q", doc.Issuer, s.issuer)
	}
	u, err := url.Parse(doc.Keys)
	if err != nil || u.Host == "" {
		return "", errors.New("no jwks_uri")
	}
	return doc.Keys, allowed(u, s.cfg.Insecure)
}
