package authn

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"time"
)

// claims is a verified token in the form that the cache keeps. It is never changed.
type claims struct {
	sub, jti      string
	exp, nbf, iat time.Time
	roles         []string
	all           map[string]any
	key           VerifyKey
	kid           string // as the token wrote it
}

func (c *claims) user() *User {
	return &User{ID: c.sub, Roles: slices.Clone(c.roles), Claims: maps.Clone(c.all), TokenID: c.jti, ExpiresAt: c.exp}
}

// read checks everything about a payload that does not depend on the time.
func (v *Verifier) read(payload string) (*claims, error) {
	all, err := strictObject(payload)
	if err != nil {
		return nil, refuse("payload")
	}
	c := &claims{all: all}
	var ok [7]bool
	var iss string
	var aud []string
	c.sub, ok[0] = textClaim(all, "sub")
	c.jti, ok[1] = textClaim(all, "jti")
	iss, ok[2] = textClaim(all, "iss")
	c.exp, ok[3] = timeClaim(all, "exp")
	c.nbf, ok[4] = timeClaim(all, "nbf")
	c.iat, ok[5] = timeClaim(all, "iat")
	c.roles, ok[6] = listClaim(all, v.cfg.RolesClaim)
	if ok != [7]bool{true, true, true, true, true, true, true} {
		return nil, refuse("claims")
	}
	if one, isText := all["aud"].(string); isText {
		aud = []string{one}
	} else if aud, isText = listClaim(all, "aud"); !isText {
		return nil, refuse("claims")
	}
	switch {
	case c.sub == "":
		return nil, refuse("no subject")
	case c.exp.IsZero():
		return nil, refuse("no expiry")
	case v.cfg.Issuer != "" && iss != v.cfg.Issuer:
		return nil, refuse("issuer")
	case !v.meant(aud):
		return nil, refuse("audience")
	}
	return c, nil
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
	f, ok := v.(float64)
	if !ok || !(f > 0 && f <= latest) {
		return time.Time{}, false
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)), true
}

// listClaim returns a claim that is an array of strings or absent.
func listClaim(all map[string]any, name string) ([]string, bool) {
	v, there := all[name]
	if !there {
		return nil, true
	}
	a, ok := v.([]any)
	if !ok {
		return nil, false
	}
	list := make([]string, len(a))
	for i, e := range a {
		if list[i], ok = e.(string); !ok {
			return nil, false
		}
	}
	return list, true
}

// samePublic compares keys that passed Check.
func samePublic(a, b any) bool {
	if x, ok := a.([]byte); ok {
		y, ok := b.([]byte)
		return ok && bytes.Equal(x, y)
	}
	return equalKeys(a, b)
}
