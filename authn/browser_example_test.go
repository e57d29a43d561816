package authn_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/sillar-go/sillar/authn"
)

// A page in a browser keeps its token in a cookie that scripts cannot read. Browsers send cookies with requests of
// other sites too, so such a service needs a defence against cross-site request forgery: SameSite, and
// http.CrossOriginProtection. Tokens in the Authorization header need none.
func ExampleRequire_cookie() {
	const cookie = "__Host-token" // the prefix makes browsers insist on Secure, on Path=/ and on this host
	issuer, v := exampleIssuer()

	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pair, err := issuer.Issue(r.Context(), authn.Subject{ID: "ana"}) // after a check of the password
		if err != nil {
			authn.WriteError(r.Context(), w, err)
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: cookie, Value: pair.AccessToken, MaxAge: int(pair.ExpiresIn),
			Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
	})
	fromCookie := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := r.Cookie(cookie); err == nil && r.Header.Get("Authorization") == "" {
				r = r.Clone(r.Context())
				r.Header.Set("Authorization", "Bearer "+c.Value)
			}
			next.ServeHTTP(w, r)
		})
	}
	order := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := authn.FromContext(r.Context())
		fmt.Fprint(w, "an order of ", user.ID)
	})
	mux := http.NewServeMux()
	mux.Handle("POST /login", login)
	mux.Handle("POST /orders", fromCookie(authn.Require(v)(order)))
	site := http.NewCrossOriginProtection().Handler(mux)

	rec := httptest.NewRecorder()
	site.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/login", nil))
	signedIn := rec.Result().Cookies()[0]
	for _, origin := range []string{"same-origin", "cross-site"} {
		r := httptest.NewRequest(http.MethodPost, "/orders", nil)
		r.Header.Set("Sec-Fetch-Site", origin) // by the browser
		r.AddCookie(signedIn)
		rec := httptest.NewRecorder()
		site.ServeHTTP(rec, r)
		fmt.Println(origin, rec.Code)
	}

	// Output:
	// same-origin 200
	// cross-site 403
}

// A browser cannot set the Authorization header of a WebSocket. It sends the token as a subprotocol:
//
//	new WebSocket("wss://shop.example/live", ["shop.v1", "bearer." + token])
//
// The server selects shop.v1, and never repeats the token in its answer. Other sites cannot open such a WebSocket,
// because they do not have the token; with a cookie in its place the server would have to check Origin.
func ExampleRequire_webSocket() {
	issuer, v := exampleIssuer()

	fromSubprotocol := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			offered := strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",")
			var rest []string
			r = r.Clone(r.Context())
			for _, p := range offered {
				p = strings.TrimSpace(p)
				if token, ok := strings.CutPrefix(p, "bearer."); ok {
					r.Header.Add("Authorization", "Bearer "+token) // several are refused
				} else if p != "" {
					rest = append(rest, p)
				}
			}
			r.Header.Set("Sec-WebSocket-Protocol", strings.Join(rest, ", ")) // what a WebSocket library selects from
			next.ServeHTTP(w, r)
		})
	}
	live := fromSubprotocol(authn.Require(v)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		user, _ := authn.FromContext(r.Context()) // accept the WebSocket here, and close it at user.ExpiresAt
		fmt.Println(user.ID, r.Header.Get("Sec-WebSocket-Protocol"))
	})))

	pair, err := issuer.Issue(context.Background(), authn.Subject{ID: "ana"})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest(http.MethodGet, "/live", nil)
	r.Header.Set("Sec-WebSocket-Protocol", "shop.v1, bearer."+pair.AccessToken)
	live.ServeHTTP(httptest.NewRecorder(), r)

	// Output: ana shop.v1
}

func exampleIssuer() (*authn.Issuer, *authn.Verifier) {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	audience := []string{"shop"}
	return authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "https://shop",
			Audience: audience})),
		authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "https://shop", Audience: audience}))
}

// API keys are accepted beside tokens.
func ExampleAPIKeys() {
	ctx := context.Background()
	signing := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	keys := authn.Must(authn.NewAPIKeys(authn.NewMemoryAPIKeys(), authn.APIKeyConfig{Prefix: "shop"}))
	v := authn.Must(authn.NewVerifier(signing, authn.VerifierConfig{
		Issuer: "https://shop", Audience: []string{"shop"}, APIKeys: keys,
	}))

	secret, key, err := keys.Issue(ctx, authn.Subject{ID: "ci", Scopes: []string{"orders:read"}},
		authn.APIKeyOptions{Name: "CI"})
	if err != nil {
		fmt.Println(err)
		return
	}
	next, err := keys.Rotate(ctx, key.ID) // the first secret works for APIKeyConfig.Overlap longer
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, bearer := range []string{secret, next} {
		user, err := v.Verify(ctx, bearer)
		fmt.Println(user.ID, user.Scopes, err)
	}

	// Output:
	// ci [orders:read] <nil>
	// ci [orders:read] <nil>
}
