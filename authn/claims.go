package authn

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"
)

// claims is a verified token in the form that the cache keeps. It is never changed.
type claims struct {
	sub, jti      string
	client        string
	exp, nbf, iat time.Time
	roles, scopes []string
	all           map[string]any
	payload       string
	key           VerifyKey
	kid           string // as the token wrote it
}

func (c *claims) user() *User {
	return &User{
		ID: c.sub, Roles: slices.Clone(c.roles), Scopes: slices.Clone(c.scopes), ClientID: c.client,
		Claims: maps.Clone(c.all), TokenID: c.jti, ExpiresAt: c.exp, payload: c.payload,
	}
}

// invalidClaim refuses a token because of one claim. name is the name of the claim, never its value.
func invalidClaim(name, reason string) error {
	return &TokenError{Reason: "claim " + name + ": " + reason, Claim: name}
}

// readClaims checks everything about a payload that does not depend on the time.
func (v *Verifier) readClaims(payload string) (*claims, error) {
	all, err := strictObject(payload)
	if err != nil {
		return nil, refuse("payload is not strict JSON")
	}
	c := &claims{all: all, payload: payload}
	var iss string
	for _, text := range [...]struct {
		name string
		dest *string
	}{{"sub", &c.sub}, {"jti", &c.jti}, {"iss", &iss}} {
		var ok bool
		if *text.dest, ok = textClaim(all, text.name); !ok {
			return nil, invalidClaim(text.name, "not a string")
		}
	}
	for _, at := range [...]struct {
		name string
		dest *time.Time
	}{{"exp", &c.exp}, {"nbf", &c.nbf}, {"iat", &c.iat}} {
		var ok bool
		if *at.dest, ok = timeClaim(all, at.name); !ok {
			return nil, invalidClaim(at.name, "not a number of seconds between the years 1970 and 9999")
		}
	}
	aud, ok := listClaim(lookupClaim(all, v.cfg.AudienceClaim))
	if !ok {
		return nil, invalidClaim(v.cfg.AudienceClaim, "neither a string nor an array of strings")
	}
	if c.roles, ok = namesClaim(lookupClaim(all, v.cfg.RolesClaim)); !ok {
		return nil, invalidClaim(v.cfg.RolesClaim, "neither a string, an array of strings nor an object")
	}
	if c.scopes, ok = scopes(all); !ok {
		return nil, invalidClaim("scope", "neither a string nor an array of strings")
	}
	for _, name := range [...]string{"client_id", "azp", "cid", "appid"} { // RFC 9068; OpenID Connect; Okta; Entra v1
		if id, _ := textClaim(all, name); id != "" {
			c.client = id
			break
		}
	}
	switch {
	case c.sub == "":
		return nil, invalidClaim("sub", "missing")
	case c.exp.IsZero():
		return nil, invalidClaim("exp", "missing")
	case v.cfg.Issuer != "" && iss != v.cfg.Issuer:
		return nil, invalidClaim("iss", "another issuer")
	case !v.addressed(aud):
		return nil, invalidClaim(v.cfg.AudienceClaim, "another audience")
	case has(all, "cnf"): // RFC 7800: the sender of such a token has to prove the possession of a key
		return nil, invalidClaim("cnf", "the token is bound to a key of its sender, which is not checked here")
	}
	return c, v.checkUse(all)
}

// checkUse refuses tokens whose claims show that they are no access tokens: ID tokens unless they are wanted, and
// refresh and logout tokens.
func (v *Verifier) checkUse(all map[string]any) error {
	typ, _ := textClaim(all, "typ")       // Keycloak
	use, _ := textClaim(all, "token_use") // Cognito
	switch {
	case typ == "Refresh" || typ == "Offline" || typ == "Logout" || has(all, "events"):
		return invalidClaim("typ", "not an access token")
	case v.cfg.IDTokens:
		return nil
	case typ == "ID":
		return invalidClaim("typ", "an ID token")
	case use == "id":
		return invalidClaim("token_use", "an ID token")
	case has(all, "at_hash"):
		return invalidClaim("at_hash", "an ID token")
	}
	return nil
}

// scopes returns the scopes of a token: RFC 9068's claim scope, or scp as Entra, Okta and Ory write it.
func scopes(all map[string]any) ([]string, bool) {
	v, there := all["scope"]
	if !there {
		v, there = all["scp"]
	}
	if s, isText := v.(string); isText {
		return splitScopes(s), true
	}
	if v == nil {
		return nil, true
	}
	return listClaim(v, there)
}

// lookupClaim returns the claim of a name. A name with dots that is no claim itself is a path into nested objects, such
// as realm_access.roles. The names in a path may have dots too, as the client ids of Keycloak in resource_access do.
func lookupClaim(all map[string]any, name string) (v any, there bool) {
	if v, there = all[name]; there {
		return v, true
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if object, ok := all[name[:i]].(map[string]any); ok {
			if v, there = lookupClaim(object, name[i+1:]); there {
				return v, true
			}
		}
	}
	return nil, false
}

func has(all map[string]any, name string) bool {
	_, there := all[name]
	return there
}

// namesClaim is listClaim that also takes the names of the members of an object, as Zitadel writes roles, and null and
// an empty string for an empty list: null is what many issuers write for a user without roles.
func namesClaim(v any, there bool) ([]string, bool) {
	if v == nil || v == "" {
		return nil, true
	}
	if object, ok := v.(map[string]any); ok {
		return slices.Sorted(maps.Keys(object)), true
	}
	return listClaim(v, there)
}

// textClaim returns a claim that is a string or absent.
func textClaim(all map[string]any, name string) (string, bool) {
	v, there := all[name]
	s, ok := v.(string)
	return s, ok || !there
}

// latest is the largest time that a claim may hold, the year 9999: beyond, time.Time and JSON disagree.
const latest = 253402300799

// timeClaim returns a claim that is a number of seconds or absent.
func timeClaim(all map[string]any, name string) (time.Time, bool) {
	v, there := all[name]
	if !there {
		return time.Time{}, true
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	f, err := n.Float64()
	if err != nil || !(f >= 0 && f <= latest) {
		return time.Time{}, false
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)), true
}

// listClaim returns a value that is absent, an array of strings, or one string that stands for an array of one.
func listClaim(v any, there bool) ([]string, bool) {
	if !there {
		return nil, true
	}
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for i, e := range v {
			var ok bool
			if list[i], ok = e.(string); !ok {
				return nil, false
			}
		}
		return list, true
	}
	return nil, false
}
