package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

var (
	errSilent    = errors.New("gateway: the service did not begin its answer in time")
	errIdle      = errors.New("gateway: the service paused too long in its answer")
	errStatus    = errors.New("gateway: the service answered with a status that is none")
	errNoVerdict = errors.New("gateway: the client ended the request")
	errTooLarge  = errors.New("gateway: the body is too large")
	errRevoked   = errors.New("gateway: another attempt has the body")
	errRequest   = errors.New("gateway: the request cannot be sent")     // because of what the client sent
	errReset     = errors.New("gateway: the service resets the request") // HTTP/2's word for a malformed one
	errLarge     = errors.New("gateway: no answer to a large header")
	errUnsent    = errors.New("gateway: there was no connection") // so that nothing has been sent
	errOwnLimit  = errors.New("gateway: the header of the answer is too large")
)

// RoundTrip sends the request to instances until one answers, as long as nothing can be processed twice.
func (r *route) RoundTrip(out *http.Request) (*http.Response, error) {
	ctx, x := out.Context(), exchangeOf(out.Context())
	r.budget.deposit()
	var space [4]*instance
	tried := space[:0]
	pause := 10 * time.Millisecond
	waits := false // for an instance that refuses connections
	for n := 1; ; n++ {
		inst, done, err := r.pick(ctx, tried)
		if err != nil {
			return nil, err
		}
		res, err := r.send(out, x, inst, done, n-1)
		if ctx.Err() != nil || x.body.failed() || !retriable(out, res, err) || !x.body.revoke() {
			return res, err
		}
		tried = append(tried, inst)
		others := r.another(tried)
		switch {
		case r.awaits(inst, err) && (others || waits || r.budget.withdraw(false)):
			// Nothing was sent, so this does not count as an attempt, and another instance may be asked. A wait counts
			// as one retry, however often it dials.
			waits = waits || !others
			n--
		case n < r.Attempts && (others || res == nil) && r.budget.withdraw(false):
		default: // there is no other instance to ask, or retries are too many: the answer stands
			return res, err
		}
		if res != nil {
			drain(res.Body)
		}
		if !others {
			tried = tried[:0]
			if backoff.Sleep(ctx, pause+rand.N(pause)) != nil {
				return nil, err
			}
			pause = min(2*pause, 200*time.Millisecond)
		}
	}
}

// awaits reports whether the request waits for an instance that refuses connections: it has done so for less than
// Route.DialWait, as while it restarts.
func (r *route) awaits(inst *instance, err error) bool {
	if !refused(err) || r.DialWait < 0 {
		return false
	}
	now := time.Now()
	return now.Sub(inst.refused(now)) < r.DialWait
}

// dialFailed reports whether there was no connection, or none whose handshake succeeded, so that nothing has been sent.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.Is(err, errUnsent) || errors.As(err, &op) && op.Op == "dial"
}

// refused reports whether a connection was refused at once, as by a service that restarts. A certificate that is not
// accepted does not change by itself.
func refused(err error) bool {
	var network net.Error
	var certificate *tls.CertificateVerificationError
	return dialFailed(err) && !errors.As(err, &certificate) && !(errors.As(err, &network) && network.Timeout())
}

// drain reads the rest of an answer that is not passed on, so that its connection can be used again, but no more and
// for no longer than a new connection costs.
func drain(body io.ReadCloser) {
	stop := time.AfterFunc(100*time.Millisecond, func() { _ = body.Close() })
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}

// retriable reports whether a request may be sent again: it was not processed, or it is idempotent.
func retriable(out *http.Request, res *http.Response, err error) bool {
	if res != nil && res.StatusCode != http.StatusBadGateway && res.StatusCode != http.StatusServiceUnavailable &&
		res.StatusCode != http.StatusGatewayTimeout {
		return false
	}
	if dialFailed(err) {
		return true
	}
	if errors.Is(err, errSilent) || errors.Is(err, errRequest) || errors.Is(err, errOwnLimit) {
		return false // the client has waited once already, or another instance gets the same
	}
	if upgrades(out.Header) {
		return false
	}
	switch out.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return out.Header.Get("Idempotency-Key") != ""
}

// localError distinguishes limits of the gateway and of the instance from what cannot be sent at all.
func localError(err error) error {
	if strings.Contains(err.Error(), "response header") || strings.Contains(err.Error(), "COMPRESSION_ERROR") {
		return fmt.Errorf("%w: %w", errOwnLimit, err)
	}
	if strings.Contains(err.Error(), "request header list larger") {
		return fmt.Errorf("%w: %w", errLarge, err)
	}
	return fmt.Errorf("%w: %w", errRequest, err)
}

// send tries one instance, after as many others as resend says.
func (r *route) send(
	out *http.Request,
	x *exchange,
	inst *instance,
	done func(error),
	resend int,
) (*http.Response, error) {
	a := &attempt{route: r, inst: inst, body: &x.body, client: out.Context(), done: done}
	req := a.begin(out, resend)
	res, err := a.exchange(req)
	if err != nil {
		a.fail(err)
		return nil, err
	}
	return a.answer(res), nil
}
