package interop

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
	"github.com/sillar-go/sillar/internal/testenv"
)

const audience = "orders"

var quiet = slog.New(slog.DiscardHandler)

// server is an issuer of ours with all of its endpoints, on loopback.
type server struct {
	*httptest.Server
	issuer   *authn.Issuer
	verifier *authn.Verifier
}

func serve(t *testing.T, alg authn.Algorithm) *server {
	t.Helper()
	mux := http.NewServeMux()
	s := &server{Server: httptest.NewServer(mux)}
	t.Cleanup(s.Close)
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Algorithm: alg, Logger: quiet}))
	store := authn.NewMemoryTokens()
	s.issuer = authn.Must(authn.NewIssuer(keys, store, authn.IssuerConfig{Issuer: s.URL, Audience: []string{audience},
		Logger: quiet}))
	s.verifier = authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{
		Issuer: s.URL, Audience: []string{audience}, Revocations: store, Logger: quiet,
	}))
	client := func(_ context.Context, id, secret string) error {
		if id == "web" && secret == "" || id == "robot" && secret == "s3cr3t:/+%" {
			return nil
		}
		return authn.ErrClient
	}
	metadata := s.issuer.Metadata(authn.MetadataConfig{
		JWKSURI: s.URL + "/jwks.json", TokenEndpoint: s.URL + "/token", RevocationEndpoint: s.URL + "/revoke",
	})
	mux.Handle("GET /.well-known/openid-configuration", metadata)
	mux.Handle("GET /.well-known/oauth-authorization-server", metadata)
	mux.Handle("GET /jwks.json", keys.Handler())
	mux.Handle("POST /token", authn.TokenEndpoint(s.issuer,
		func(_ context.Context, name, password string) (authn.Subject, error) {
			if name != "ana" || password != "correct horse" {
				return authn.Subject{}, authn.ErrPassword
			}
			return authn.Subject{ID: "ana", Roles: []string{"user"}}, nil
		}, authn.TokenEndpointConfig{
			Client: client,
			ClientCredentials: func(_ context.Context, id string, scopes []string) (authn.Subject, error) {
				if id != "robot" || slices.Contains(scopes, "admin") {
					return authn.Subject{}, authn.ErrScope
				}
				return authn.Subject{ID: id, Scopes: scopes}, nil
			},
			Logger: quiet,
		}))
	mux.Handle("POST /revoke", authn.RevocationEndpoint(s.issuer, authn.RevocationEndpointConfig{Client: client,
		Logger: quiet}))
	mux.Handle("GET /me", authn.Require(s.verifier)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := authn.FromContext(r.Context())
		fmt.Fprint(w, u.ID)
	})))
	return s
}

// tool is another implementation that a script in testdata drives.
type tool struct {
	name    string
	command []string
	probe   []string // succeeds where the tool is installed
	install string
}

var tools = []tool{
	{"PyJWT", []string{"/usr/bin/python3", "pyjwt.py"}, []string{"/usr/bin/python3", "-c", "import jwt, cryptography"},
		"apt-get install python3-jwt python3-cryptography, or tools/services up as root"},
	{"Authlib", []string{"/usr/bin/python3", "authlib_jose.py"}, []string{"/usr/bin/python3", "-c", "import authlib"},
		"apt-get install python3-authlib, or tools/services up as root"},
	{"jose", []string{"node", "jose.mjs"}, []string{"node", "--input-type=module", "-e", "import 'jose'"},
		"npm install --no-save --prefix benchmarks/interop/testdata jose@6, or tools/services up as root"},
}

func (x tool) need(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), x.probe[0], x.probe[1:]...)
	cmd.Dir = "testdata"
	if cmd.Run() == nil {
		return
	}
	testenv.Missing(t, "no "+x.name+": "+x.install)
}

type question struct {
	Do       string `json:"do"`
	Alg      string `json:"alg"`
	Token    string `json:"token,omitempty"`
	JWKSURI  string `json:"jwks_uri,omitempty"`
	Secret   string `json:"secret,omitempty"`
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
}

type answer struct {
	Sub     string          `json:"sub"`
	Roles   []string        `json:"roles"`
	Refused string          `json:"refused"`
	Token   string          `json:"token"`
	JWKS    json.RawMessage `json:"jwks"`
	PEM     string          `json:"pem"`
}

func (x tool) ask(t *testing.T, q question) (a answer) {
	t.Helper()
	in, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), x.command[0], x.command[1:]...)
	cmd.Dir = "testdata"
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", x.name, err, stderr.String())
	}
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%s answered %s: %v", x.name, out, err)
	}
	return a
}

const sharedSecret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Our tokens are accepted by other implementations, which find the keys in our key set; with another audience they
// refuse.
func TestOurTokensElsewhere(t *testing.T) {
	for _, x := range tools {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			x.need(t)
			for _, alg := range []authn.Algorithm{authn.EdDSA, authn.ES256, authn.RS256, authn.HS256} {
				q := question{Do: "verify", Alg: string(alg), Audience: audience}
				var issuer *authn.Issuer
				if alg == authn.HS256 {
					q.Secret, q.Issuer = sharedSecret, "https://shop"
					keys := authn.Must(authn.NewSecretKeySet([]byte(sharedSecret)))
					issuer = authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{
						Issuer: q.Issuer, Audience: []string{audience}, Logger: quiet,
					}))
				} else {
					s := serve(t, alg)
					q.JWKSURI, q.Issuer, issuer = s.URL+"/jwks.json", s.URL, s.issuer
				}
				pair, err := issuer.Issue(t.Context(), authn.Subject{
					ID: "ana", Roles: []string{"user", "ñandú"}, Claims: map[string]any{"n": int64(9007199254740993)},
				})
				if err != nil {
					t.Fatal(err)
				}
				q.Token = pair.AccessToken
				if a := x.ask(t, q); a.Sub != "ana" || !slices.Equal(a.Roles, []string{"user", "ñandú"}) || a.Refused != "" {
					t.Errorf("%s: got %+v, want the claims of ana", alg, a)
				}
				q.Audience = "another"
				if a := x.ask(t, q); a.Refused == "" {
					t.Errorf("%s: a token for another audience is accepted: the test proves nothing", alg)
				}
			}
		})
	}
}

// Tokens of other implementations are accepted here, with their keys; changed tokens are refused.
func TestTheirTokensHere(t *testing.T) {
	const issuer = "https://theirs.example"
	for _, x := range tools {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			x.need(t)
			for _, alg := range []authn.Algorithm{
				authn.EdDSA, authn.ES256, authn.ES384, authn.ES512, authn.RS256, authn.RS512, authn.PS256, authn.HS256,
			} {
				q := question{Do: "sign", Alg: string(alg), Issuer: issuer, Audience: audience}
				if alg == authn.HS256 {
					q.Secret = sharedSecret
				}
				a := x.ask(t, q)
				v := authn.Must(authn.NewVerifier(a.keys(t, alg), authn.VerifierConfig{Issuer: issuer, Audience: []string{audience},
					Logger: quiet}))
				u, err := v.Verify(t.Context(), a.Token)
				if err != nil {
					t.Errorf("%s: %v", alg, err)
					continue
				}
				if u.ID != "theirs" || !slices.Equal(u.Roles, []string{"user", "ñandú"}) ||
					time.Until(u.ExpiresAt) > 11*time.Minute {
					t.Errorf("%s: got %+v, want their claims", alg, u)
				}
				at := strings.Index(a.Token, ".") + 10
				changed := a.Token[:at] + string("AB"[a.Token[at]&1]) + a.Token[at+1:]
				if changed == a.Token {
					changed = a.Token[:at] + "C" + a.Token[at+1:]
				}
				if _, err := v.Verify(t.Context(), changed); !errors.Is(err, authn.ErrToken) {
					t.Errorf("%s: a changed token: got %v, want ErrToken", alg, err)
				}
			}
		})
	}
}

// keys returns the keys of an answer: a key set that is read over HTTP, a PEM block, or the shared secret.
func (a answer) keys(t *testing.T, alg authn.Algorithm) authn.KeySource {
	t.Helper()
	switch {
	case len(a.JWKS) > 0:
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(a.JWKS)
		}))
		t.Cleanup(srv.Close)
		set, err := jwks.New(srv.URL, jwks.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = set.Close() })
		return set
	case a.PEM != "":
		block, _ := pem.Decode([]byte(a.PEM))
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return oneKey{authn.VerifyKey{ID: "k1", Algorithm: alg, Public: public}}
	}
	return authn.Must(authn.NewSecretKeySet([]byte(sharedSecret)))
}

// oneKey is a KeySource of one key.
type oneKey []authn.VerifyKey

// Keys implements authn.KeySource.
func (o oneKey) Keys(_ context.Context, id string, alg authn.Algorithm) ([]authn.VerifyKey, error) {
	if found := authn.FindKeys(o, id, alg); found != nil {
		return found, nil
	}
	return nil, authn.ErrUnknownKey
}

// The skip line of each tool names a script that is there.
func TestScriptsExist(t *testing.T) {
	for _, x := range tools {
		if _, err := os.Stat(filepath.Join("testdata", x.command[1])); err != nil {
			t.Error(err)
		}
	}
}
