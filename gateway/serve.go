package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/problem"
)

// statusGone is what logs and metrics say of a client that went away.
const statusGone = 499

// exchange is one request on its way.
type exchange struct {
	route *route
	path  string // escaped, as the service sees it
	who   *identity
	body  *requestBody
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// ServeHTTP implements http.Handler. It sets r.Pattern to the prefix of the route.
func (g *Gateway) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	ctx, id, span := g.telemetry.enter(r)
	w := &reply{
		ResponseWriter: rw,
		id:             id,
		major:          r.ProtoMajor,
		cors:           g.cors,
		origin:         g.cors.allow(r.Header.Get("Origin")),
	}
	panics := true
	defer func() {
		if panics && w.status == 0 { // of the Fallback, the Authenticator or the Limiter; net/http cuts the connection
			w.status = http.StatusInternalServerError
		}
		g.telemetry.end(ctx, span, w, r, g.remote(r), time.Since(start))
	}()
	g.serve(ctx, w, r)
	panics = false
}

func (g *Gateway) serve(ctx context.Context, w *reply, r *http.Request) {
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		problem.Write(ctx, w, http.StatusMethodNotAllowed, "method-not-allowed", "The method is not allowed here.")
		return
	}
	if g.preflight(w, r) || g.serveOwn(ctx, w, r) {
		return
	}
	path := receivedPath(r.URL)
	if !strings.HasPrefix(path, "/") || checkPath(path, true) != nil {
		problem.Write(ctx, w, http.StatusBadRequest, "bad-path", "The path is not clean.")
		return
	}
	table := g.table.Load()
	rt := table.find(path)
	if respelled(path) && table.findPlain(path) != rt { // another route's rules may be meant for what the service sees
		problem.Write(ctx, w, http.StatusBadRequest, "bad-path", "The path is not clean.")
		return
	}
	if rt == nil {
		if g.cfg.Fallback != nil {
			own := r.WithContext(ctx)
			own.Header = r.Header.Clone()
			g.removeOwned(own.Header)
			own.Header.Set(correlation.Header, w.id)
			g.cfg.Fallback.ServeHTTP(w, own)
			return
		}
		problem.Write(ctx, w, http.StatusNotFound, "not-found", "No service has this path.")
		return
	}
	r.Pattern = rt.Prefix
	x := &exchange{route: rt, path: rt.upstreamPath(path)}
	if checkPath(path, rt.EncodedSlashes) != nil || checkPath(x.path, rt.EncodedSlashes) != nil {
		problem.Write(ctx, w, http.StatusBadRequest, "bad-path", "The path is not clean.")
		return
	}
	if upgrades(r.Header) {
		websocket := strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
		if websocket && !rt.Upgrade {
			problem.Write(ctx, w, http.StatusBadRequest, "upgrade-refused", "The connection cannot be upgraded here.")
			return
		}
		if !websocket { // RFC 9110, 7.8: a server may ignore what it does not support
			r = r.Clone(ctx)
			removeUpgrade(r.Header)
		}
	}
	if !g.admit(ctx, w, r, x) {
		return
	}
	if rt.MaxBody > 0 && r.ContentLength > rt.MaxBody {
		g.tooLarge(ctx, w)
		return
	}
	x.body = &requestBody{
		max: rt.MaxBody,
		cut: func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) },
	}
	if rt.TotalTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rt.TotalTimeout)
		defer cancel()
		defer context.AfterFunc(ctx, x.body.cutStalled)()
	}
	if r.ContentLength != 0 && r.ProtoMajor == 1 { // else net/http throws away what was not read when the answer begins
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	w.limitWrites(rt.WriteTimeout)
	defer w.endWrites(ctx)()
	rt.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
}

// admit says whether the caller may pass: rate limit, token, roles.
func (g *Gateway) admit(ctx context.Context, w *reply, r *http.Request, x *exchange) bool {
	limit := x.route.RateLimit
	if limit != nil && !limit.BySubject && !g.within(ctx, w, x.route, "|client:", g.network(r)) {
		return false
	}
	if !g.cfg.Anonymous && !x.route.public(r.Method, x.path) {
		token := bearer(r.Header)
		if token == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem.Write(ctx, w, http.StatusUnauthorized, "unauthorized", "A bearer token is required.")
			return false
		}
		subject, roles, claims, err := g.cfg.Auth.Authenticate(ctx, token)
		if err != nil {
			g.refuse(ctx, w, err)
			return false
		}
		if !allowed(x.route.Roles, roles) {
			problem.Write(ctx, w, http.StatusForbidden, "forbidden", "The caller's roles do not allow this.")
			return false
		}
		x.who = &identity{subject, roles, claims}
	}
	if limit != nil && limit.BySubject {
		if x.who != nil {
			return g.within(ctx, w, x.route, "|subject:", x.who.subject)
		}
		return g.within(ctx, w, x.route, "|client:", g.network(r))
	}
	return true
}

// refuse answers a token that was not accepted.
func (g *Gateway) refuse(ctx context.Context, w *reply, err error) {
	if ctx.Err() != nil {
		w.gone()
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

// cannotTell says that an authenticator's error is about its own neighbours, such as a key server, not about the token.
func cannotTell(err error) bool {
	var network net.Error // context.DeadlineExceeded is one
	var says interface{ Temporary() bool }
	return errors.As(err, &network) || errors.As(err, &says) && says.Temporary()
}

// within counts a request, and answers it when it is one too many.
func (g *Gateway) within(ctx context.Context, w *reply, rt *route, kind, who string) bool {
	burst := rt.RateLimit.Burst
	if burst == 0 {
		burst = max(1, int(rt.RateLimit.Rate))
	}
	ok, after, err := g.cfg.Limiter.Allow(ctx, rt.Name+kind+who, rt.RateLimit.Rate, burst)
	if ctx.Err() != nil {
		w.gone()
		return false
	}
	if err != nil { // a door that is shut because its counter is broken helps nobody
		g.telemetry.log(
			ctx, slog.LevelError, "gateway: the rate limit cannot be counted, the request passes", slog.Any("error", err),
			slog.String("route", rt.Name),
		)
		return true
	}
	if !ok {
		retryAfter(w.Header(), after)
		problem.Write(ctx, w, http.StatusTooManyRequests, "too-many-requests", "Too many requests.")
	}
	return ok
}

func (g *Gateway) tooLarge(ctx context.Context, w *reply) {
	w.closeConnection()
	problem.Write(ctx, w, http.StatusRequestEntityTooLarge, "too-large", "The body is too large.")
}

// failed answers a request that got no answer from a service.
func (g *Gateway) failed(rw http.ResponseWriter, r *http.Request, err error) {
	ctx, w := r.Context(), rw.(*reply)
	x := exchangeOf(ctx)
	log := func(what string) {
		g.telemetry.log(ctx, slog.LevelWarn, "gateway: "+what, slog.String("route", x.route.Name), slog.Any("error", err))
	}
	var open *noInstance
	switch {
	case x.body.tooLarge.Load():
		g.tooLarge(ctx, w)
	case x.body.stalled.Load():
		w.closeConnection()
		problem.Write(ctx, w, http.StatusRequestTimeout, "slow-request", "The body did not arrive in time.")
	case x.body.broken.Load() && ctx.Err() == nil && r.ProtoMajor == 1:
		w.Header().Set("Connection", "close")
		problem.Write(ctx, w, http.StatusBadRequest, "bad-request", "The body is malformed.")
	case errors.Is(ctx.Err(), context.Canceled) || x.body.broken.Load():
		w.gone()
	case errors.Is(err, errRequest):
		g.telemetry.log(
			ctx, slog.LevelInfo, "gateway: a request cannot be sent", slog.String("route", x.route.Name), slog.Any("error", err),
		)
		w.closeConnection()
		problem.Write(ctx, w, http.StatusBadRequest, "bad-request", "The request cannot be sent to the service.")
	case errors.As(err, &open):
		retryAfter(w.Header(), open.after)
		problem.Write(ctx, w, http.StatusServiceUnavailable, "unavailable", "The service is not available at present.")
	case errors.Is(err, errSilent) || errors.Is(err, context.DeadlineExceeded):
		log("no answer in time")
		problem.Write(ctx, w, http.StatusGatewayTimeout, "timeout", "The service did not answer in time.")
	default:
		log("no answer")
		problem.Write(ctx, w, http.StatusBadGateway, "bad-gateway", "The service could not be reached.")
	}
}

func retryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(d.Seconds())))))
}

// upgrades says whether a request wants another protocol.
func upgrades(h http.Header) bool {
	if len(h["Upgrade"]) > 0 {
		return true
	}
	for _, line := range h["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// removeUpgrade removes a request for another protocol.
func removeUpgrade(h http.Header) {
	delete(h, "Upgrade")
	delete(h, "Http2-Settings")
	var rest []string
	for _, line := range h["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			token = strings.TrimSpace(token)
			if token != "" && !strings.EqualFold(token, "upgrade") && !strings.EqualFold(token, "http2-settings") {
				rest = append(rest, token)
			}
		}
	}
	delete(h, "Connection")
	if len(rest) > 0 {
		h["Connection"] = []string{strings.Join(rest, ", ")}
	}
}
