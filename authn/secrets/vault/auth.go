package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/secret"
)

// Auth is a way to log in: Token, AppRole or Kubernetes.
type Auth interface {
	login(ctx context.Context, c *Client) (lease, error)
	again() bool // whether another login could help
}

// lease is a token and how long it lives.
type lease struct {
	token     secret.Value[string]
	ttl       time.Duration // 0: for ever
	renewable bool
}

// answer is the part of Vault's login and look-up answers that matters here.
type answer struct {
	Auth struct {
		Token     string `json:"client_token"`
		Seconds   int64  `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
	Data json.RawMessage `json:"data"`
}

func (a *answer) lease() (lease, error) {
	if a.Auth.Token == "" {
		return lease{}, errors.New("vault: the login's answer holds no token")
	}
	return lease{secret.New(a.Auth.Token), time.Duration(a.Auth.Seconds) * time.Second, a.Auth.Renewable}, nil
}

type tokenAuth struct{ token secret.Value[string] }

// Token uses a token that somebody else got. It is renewed while it can be.
func Token(token string) Auth { return tokenAuth{secret.New(token)} }

func (tokenAuth) again() bool { return false }

func (t tokenAuth) login(ctx context.Context, c *Client) (lease, error) {
	var a answer
	if err := c.send(ctx, "look up the token", http.MethodGet, "auth/token/lookup-self", t.token, nil, &a); err != nil {
		return lease{}, err
	}
	var d struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	if json.Unmarshal(a.Data, &d) != nil {
		return lease{}, errors.New("vault: the token's look-up cannot be read")
	}
	return lease{t.token, time.Duration(d.TTL) * time.Second, d.Renewable}, nil
}

type mounted struct {
	mount string
	body  func() (map[string]string, error)
}

func (mounted) again() bool { return true }

func (m mounted) login(ctx context.Context, c *Client) (lease, error) {
	body, err := m.body()
	if err != nil {
		return lease{}, err
	}
	var a answer
	if err := c.send(ctx, "log in", http.MethodPost, "auth/"+m.mount+"/login", secret.Value[string]{}, body, &a); err != nil {
		return lease{}, err
	}
	return a.lease()
}

// AppRole logs in as an application, at the mount auth/approle.
func AppRole(roleID, secretID string) Auth {
	s := secret.New(secretID)
	return mounted{"approle", func() (map[string]string, error) {
		return map[string]string{"role_id": roleID, "secret_id": s.Reveal()}, nil
	}}
}

// serviceAccount is where Kubernetes puts a pod's token.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Kubernetes logs in with the pod's service account, at the mount auth/kubernetes. The token file is read at every
// login: Kubernetes replaces it. An empty path means where Kubernetes puts it.
func Kubernetes(role, tokenFile string) Auth {
	if tokenFile == "" {
		tokenFile = serviceAccount
	}
	return mounted{"kubernetes", func() (map[string]string, error) {
		jwt, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, errors.New("vault: the service account's token cannot be read")
		}
		return map[string]string{"role": role, "jwt": strings.TrimSpace(string(jwt))}, nil
	}}
}

// token returns a token that lives, logging in if need be. One caller logs in, the others wait.
func (c *Client) token(ctx context.Context) (secret.Value[string], error) {
	if err := c.take(ctx); err != nil {
		return secret.Value[string]{}, err
	}
	defer c.give()
	if !c.lease.token.IsZero() && (c.lease.ttl == 0 || time.Now().Before(c.expires)) {
		return c.lease.token, nil
	}
	l, err := c.cfg.Auth.login(ctx, c)
	if err != nil {
		return secret.Value[string]{}, err
	}
	c.hold(l)
	return l.token, nil
}

// take waits for the turn, which give passes on.
func (c *Client) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Client) give() { <-c.turn }

// hold takes a lease, and tells the renewing goroutine. c.turn must be held.
func (c *Client) hold(l lease) {
	c.lease, c.expires = l, time.Now().Add(l.ttl)
	select {
	case c.news <- l:
	default: // it has not looked yet: what it will see is this one
		select {
		case <-c.news:
		default:
		}
		c.news <- l
	}
}

// forget drops a token that the server refused, so that the next call logs in.
func (c *Client) forget(ctx context.Context, token secret.Value[string]) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.give()
	if c.lease.token.Reveal() == token.Reveal() {
		c.lease = lease{}
	}
	return nil
}

// keep renews the token, at two thirds of its life, until the client is closed.
func (c *Client) keep() {
	var due <-chan time.Time
	for {
		select {
		case <-c.ctx.Done():
			return
		case l := <-c.news:
			due = nil
			if l.ttl > 0 {
				due = time.After(l.ttl * 2 / 3)
			}
		case <-due:
			due = c.renew()
		}
	}
}

// renew renews the token or logs in again, and returns when to try once more if neither worked. Callers use the old
// token meanwhile.
func (c *Client) renew() (retry <-chan time.Time) {
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	if c.take(ctx) != nil { // a caller's login takes long, or the client is closed
		return time.After(5 * time.Second)
	}
	old, expires := c.lease, c.expires
	c.give()
	if old.token.IsZero() { // a caller was refused with it, and is logging in
		return nil
	}
	l, err := c.renewed(ctx, old)
	if err == nil {
		err = c.take(ctx)
	}
	if err == nil {
		if c.lease.token.Reveal() == old.token.Reveal() { // else somebody has logged in meanwhile
			c.hold(l)
		}
		c.give()
		return nil
	}
	if errors.Is(err, ErrDenied) && c.cfg.Auth.again() { // revoked: callers see it too, and one of us logs in for all
		if err = c.forget(ctx, old.token); err == nil {
			if _, err = c.token(ctx); err == nil {
				return nil
			}
		}
	}
	if c.ctx.Err() == nil {
		c.cfg.Logger.Error("the Vault token could not be renewed", "error", err)
	}
	return time.After(max(time.Until(expires)/3, 5*time.Second))
}

func (c *Client) renewed(ctx context.Context, old lease) (lease, error) {
	err := errors.New("vault: the token is not renewable")
	if old.renewable {
		var a answer
		if err = c.send(ctx, "renew the token", http.MethodPost, "auth/token/renew-self", old.token, map[string]string{}, &a); err == nil {
			l, err := a.lease()
			if err == nil && (l.ttl > old.ttl/10 || !c.cfg.Auth.again()) { // near the end of its longest life each renewal is shorter
				return l, nil
			}
		}
		if errors.Is(err, ErrDenied) {
			return lease{}, err
		}
	}
	if c.cfg.Auth.again() {
		return c.cfg.Auth.login(ctx, c)
	}
	return lease{}, err
}
