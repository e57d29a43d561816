package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/sillar-go/sillar/internal/problem"
)

// Caller returns who was admitted, for middleware of routes. ok is false for requests without an accepted token.
func Caller(ctx context.Context) (subject string, roles []string, ok bool) {
	x := exchangeOf(ctx)
	if x == nil || x.who == nil {
		return "", nil, false
	}
	return x.who.subject, x.who.roles, true
}

// admit reports whether the caller may pass: rate limit, token, roles.
func (g *Gateway) admit(ctx context.Context, w *reply, r *http.Request, x *exchange) bool {
	limit := x.route.RateLimit
	if limit != nil && !limit.BySubject && !g.within(ctx, w, r, x) {
		return false
	}
	if !g.cfg.Anonymous && !x.route.public(r.Method, x.path) {
		token, fromCookie := x.route.token(r)
		if fromCookie && x.route.crossSite(r) {
			problem.Write(
				ctx, w, http.StatusForbidden, "cross-origin", "A page of another origin may not use this cookie.",
			)
			return false
		}
		if x.who = g.verify(ctx, w, token, x.route.Roles); x.who == nil {
			return false
		}
	}
	return limit == nil || !limit.BySubject || g.within(ctx, w, r, x)
}

// verify returns the caller that a token stands for, and answers when it is not accepted.
func (g *Gateway) verify(ctx context.Context, w *reply, token string, want []string) *identity {
	if token == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		problem.Write(ctx, w, http.StatusUnauthorized, "unauthorized", "A bearer token is required.")
		return nil
	}
	subject, roles, claims, err := g.cfg.Auth.Authenticate(ctx, token)
	if err != nil {
		g.refuse(ctx, w, err)
		return nil
	}
	if !allowed(want, roles) {
		problem.Write(ctx, w, http.StatusForbidden, "forbidden", "The caller's roles do not allow this.")
		return nil
	}
	return &identity{subject, roles, claims}
}

// token returns the token of a request: of Authorization, else of the cookie or the subprotocol that the route allows.
func (r *route) token(req *http.Request) (token string, fromCookie bool) {
	if len(req.Header["Authorization"]) > 0 {
		return bearer(req.Header), false
	}
	if r.TokenProtocol != "" && isWebSocket(req.Header) {
		if token := r.protocolToken(req.Header); token != "" {
			return token, false
		}
	}
	if r.TokenCookie != "" {
		if cookies := req.CookiesNamed(r.TokenCookie); len(cookies) == 1 { // with two of them, another site may have set one
			return cookies[0].Value, true
		}
	}
	return "", false
}

const protocolHeader = "Sec-Websocket-Protocol"

// protocolToken returns the token of the one subprotocol that has it.
func (r *route) protocolToken(h http.Header) string {
	token := ""
	for _, line := range h[protocolHeader] {
		for p := range strings.SplitSeq(line, ",") {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(p), r.TokenProtocol); ok {
				if token != "" {
					return ""
				}
				token = rest
			}
		}
	}
	return token
}

// removeTokenProtocol removes subprotocols that are tokens.
func (r *route) removeTokenProtocol(h http.Header) {
	var rest []string
	for _, line := range h[protocolHeader] {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" && !strings.HasPrefix(p, r.TokenProtocol) {
				rest = append(rest, p)
			}
		}
	}
	delete(h, protocolHeader)
	if len(rest) > 0 {
		h[protocolHeader] = []string{strings.Join(rest, ", ")}
	}
}

// crossOrigin trusts the origins that may send credentials.
func crossOrigin(c *CORS) (*http.CrossOriginProtection, error) {
	p := http.NewCrossOriginProtection()
	if c == nil || !c.Credentials {
		return p, nil
	}
	for _, origin := range c.Origins {
		if origin == "null" { // sandboxed pages of every site have it
			continue
		}
		if err := p.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// crossSite reports whether a page of another origin caused the request. An upgrade is not a safe request, although its
// method is GET: messages over the WebSocket may change state.
func (r *route) crossSite(req *http.Request) bool {
	if isWebSocket(req.Header) {
		post := *req
		post.Method = http.MethodPost
		req = &post
	}
	return r.protection.Check(req) != nil
}

// refuse answers a token that was not accepted.
func (g *Gateway) refuse(ctx context.Context, w *reply, err error) {
	if ctx.Err() != nil {
		w.disconnected()
		return
	}
	challenge := `Bearer error="invalid_token"`
	var c interface{ Challenge() string }
	switch {
	case errors.As(err, &c) && c.Challenge() != "":
		challenge = c.Challenge()
	case cannotTell(err):
		g.telemetry.log(ctx, slog.LevelError, "gateway: the token could not be verified", slog.Any("error", err))
		retryAfter(w.Header(), 0)
		problem.Write(ctx, w, http.StatusServiceUnavailable, "unavailable", "Tokens cannot be verified at present.")
		return
	}
	g.telemetry.log(ctx, slog.LevelDebug, "gateway: token refused", slog.Any("error", err))
	w.Header().Set("WWW-Authenticate", challenge)
	problem.Write(ctx, w, http.StatusUnauthorized, "unauthorized", "The token is not accepted.")
}

// cannotTell reports whether an authenticator's error concerns what it depends on, such as a key server, and not the
// token.
func cannotTell(err error) bool {
	var network net.Error // context.DeadlineExceeded is one
	var says interface{ Temporary() bool }
	return errors.As(err, &network) || errors.As(err, &says) && says.Temporary()
}
