package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
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
	body  requestBody
	reply *reply

	tunnel io.Closer // what a protocol was changed for; nil: nothing
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
	}
	w.allowOrigin(g.cors, r)
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
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace || strings.ToUpper(r.Method) != r.Method {
		// Some services fold the case: a route's Methods and Public would not see what they do.
		problem.Write(ctx, w, http.StatusMethodNotAllowed, "method-not-allowed", "The method is not allowed here.")
		return
	}
	if r.ProtoMajor > 1 && !validLength(r.Header) {
		problem.Write(ctx, w, http.StatusBadRequest, "bad-request", "Content-Length is no number.")
		return
	}
	table := g.table.Load()
	asked := isPreflight(r)
	if asked && table.cors {
		if rt := table.find(receivedPath(r.URL), preflighted(r)); rt != nil && rt.cors != nil {
			w.allowOrigin(rt.cors, r)
		}
	}
	if asked && w.preflight() || g.serveOwn(ctx, w, r) {
		return
	}
	path := receivedPath(r.URL)
	if !strings.HasPrefix(path, "/") || checkPath(path, true) != nil {
		problem.Write(ctx, w, http.StatusBadRequest, "bad-path", "The path is not clean.")
		return
	}
	rt := table.find(path, r)
	if notPlain(path) && table.findPlain(path, r) != rt { // another route's rules may be meant for what the service sees
		problem.Write(ctx, w, http.StatusBadRequest, "bad-path", "The path is not clean.")
		return
	}
	if rt == nil {
		g.serveFallback(ctx, w, r)
		return
	}
	r.Pattern = rt.Prefix
	if rt.cors != nil {
		w.allowOrigin(rt.cors, r)
	}
	x := &exchange{route: rt, path: rt.upstreamPath(path), reply: w}
	if checkPath(path, rt.EncodedSlashes) != nil || checkPath(x.path, rt.EncodedSlashes) != nil {
		problem.Write(ctx, w, http.StatusBadRequest, "bad-path", "The path is not clean.")
		return
	}
	if upgrades(r.Header) {
		websocket := isWebSocket(r.Header)
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
		g.tooLarge(ctx, w, w)
		return
	}
	g.forward(ctx, w, r, x)
}

// serveFallback answers what matches no route.
func (g *Gateway) serveFallback(ctx context.Context, w *reply, r *http.Request) {
	if g.cfg.Fallback == nil {
		problem.Write(ctx, w, http.StatusNotFound, "not-found", "No service has this path.")
		return
	}
	own := r.WithContext(ctx)
	own.Header = r.Header.Clone()
	g.removeOwned(own.Header)
	own.Header.Set(correlation.Header, w.id)
	g.cfg.Fallback.ServeHTTP(w, own)
}

// forward sends an admitted request to the service, within the bounds of its route.
func (g *Gateway) forward(ctx context.Context, w *reply, r *http.Request, x *exchange) {
	rt := x.route
	x.body.max, x.body.client = rt.MaxBody, w
	if rt.TotalTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rt.TotalTimeout)
		defer cancel()
		defer context.AfterFunc(ctx, x.body.cutStalled)()
	}
	r = r.WithContext(context.WithValue(ctx, exchangeKey{}, x))
	if r.ContentLength != 0 && r.ProtoMajor == 1 { // else net/http throws away what was not read when the answer begins
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.body = &clientBody{ReadCloser: r.Body}
		r.Body = w.body
	}
	w.limitWrites(rt.WriteTimeout)
	defer w.liftDeadline(w.endWrites(ctx))
	defer func() {
		if x.tunnel != nil { // the proxy leaves it open when it cannot take over the client's connection
			_ = x.tunnel.Close()
		}
	}()
	rt.handler.ServeHTTP(w, r)
}

func (g *Gateway) tooLarge(ctx context.Context, w *reply, rw http.ResponseWriter) {
	w.closeConnection()
	problem.Write(ctx, rw, http.StatusRequestEntityTooLarge, "too-large", "The body is too large.")
}

// failed answers a request that got no answer from a service.
func (g *Gateway) failed(rw http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	x := exchangeOf(ctx)
	w := x.reply // rw may be that of a middleware
	log := func(what string) {
		g.telemetry.log(ctx, slog.LevelWarn, "gateway: "+what, slog.String("route", x.route.Name), slog.Any("error", err))
	}
	var open *noInstance
	switch {
	case x.body.tooLarge.Load():
		g.tooLarge(ctx, w, rw)
	case x.body.stalled.Load():
		w.closeConnection()
		problem.Write(ctx, rw, http.StatusRequestTimeout, "slow-request", "The body did not arrive in time.")
	case x.body.broken.Load() && ctx.Err() == nil && (r.ProtoMajor == 1 || x.body.malformed.Load()):
		w.closeConnection()
		problem.Write(ctx, rw, http.StatusBadRequest, "bad-request", "The body is malformed.")
	case errors.Is(ctx.Err(), context.Canceled) || x.body.broken.Load():
		w.closeConnection()
		rw.WriteHeader(statusGone)
	case errors.Is(err, errRequest) || errors.Is(err, errReset):
		g.telemetry.log(
			ctx, slog.LevelInfo, "gateway: a request cannot be sent", slog.String("route", x.route.Name), slog.Any("error", err),
		)
		w.closeConnection()
		problem.Write(ctx, rw, http.StatusBadRequest, "bad-request", "The request cannot be sent to the service.")
	case errors.Is(err, errLarge):
		log("no answer to a large header")
		problem.Write(
			ctx, rw, http.StatusRequestHeaderFieldsTooLarge, "large-header", "The header is too large for the service.",
		)
	case errors.As(err, &open):
		retryAfter(rw.Header(), open.after)
		problem.Write(ctx, rw, http.StatusServiceUnavailable, "unavailable", "The service is not available at present.")
	case errors.Is(err, errSilent) || errors.Is(err, context.DeadlineExceeded):
		log("no answer in time")
		problem.Write(ctx, rw, http.StatusGatewayTimeout, "timeout", "The service did not answer in time.")
	default:
		log("no answer")
		problem.Write(ctx, rw, http.StatusBadGateway, "bad-gateway", "The service could not be reached.")
	}
}

func retryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(d.Seconds())))))
}

// validLength reports whether Content-Length is a number, where there is one. net/http checks that for HTTP/1 alone.
func validLength(h http.Header) bool {
	for _, v := range h["Content-Length"] {
		if _, err := strconv.ParseUint(v, 10, 63); err != nil || v[0] == '+' {
			return false
		}
	}
	return true
}

// isWebSocket reports whether a request wants to become a WebSocket.
func isWebSocket(h http.Header) bool {
	return len(h["Upgrade"]) > 0 && strings.EqualFold(h["Upgrade"][0], "websocket")
}

// upgrades reports whether a request wants another protocol.
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
