package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sillar-go/sillar/authn/secrets"
	"github.com/sillar-go/sillar/internal/secret"
)

// Auth logs in. Token, AppRole, Kubernetes and Endpoint are such; programs may write their own.
type Auth interface {
	// Login gets a token. post sends a body, as JSON and without a token, to a login endpoint of the server, such as
	// "auth/ldap/login/ana", and returns the lease in the answer.
	Login(ctx context.Context, post func(ctx context.Context, path string, body any) (Lease, error)) (Lease, error)
}

// Lease is a token and its lifetime.
type Lease struct {
	// Token is sent with each request.
	Token secrets.Secret
	// TTL is how long the token lives. 0: without end.
	TTL time.Duration
	// Renewable says that the token can be renewed before it ends.
	Renewable bool
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

func (a *answer) lease() (Lease, error) {
	if a.Auth.Token == "" {
		return Lease{}, errors.New("vault: the answer to the login contains no token")
	}
	return Lease{secret.New(a.Auth.Token), time.Duration(a.Auth.Seconds) * time.Second, a.Auth.Renewable}, nil
}

// tokenAuth is a token that exists. There is no second login: see Client.relogs.
type tokenAuth struct{ token secrets.Secret }

// Token uses a token that exists already. It is renewed while that is possible.
func Token(token string) Auth { return tokenAuth{secret.New(token)} }

// Login implements Auth. The client looks up the lifetime of the token.
func (t tokenAuth) Login(context.Context, func(context.Context, string, any) (Lease, error)) (Lease, error) {
	return Lease{Token: t.token}, nil
}

// login gets a lease from Config.Auth.
func (c *Client) login(ctx context.Context) (Lease, error) {
	l, err := c.cfg.Auth.Login(ctx, func(ctx context.Context, path string, body any) (Lease, error) {
		var a answer
		if err := c.send(ctx, "log in", http.MethodPost, strings.Trim(path, "/"), secrets.Secret{}, body, &a); err != nil {
			return Lease{}, err
		}
		return a.lease()
	})
	if err != nil {
		return Lease{}, err
	}
	if l.Token.IsZero() {
		return Lease{}, errors.New("vault: Config.Auth returned no token")
	}
	if !c.relogs() {
		return c.lookUp(ctx, l)
	}
	return l, nil
}

// relogs reports whether a second login could get another token.
func (c *Client) relogs() bool {
	_, fixed := c.cfg.Auth.(tokenAuth)
	return !fixed
}

// lookUp returns the lease of a token that exists.
func (c *Client) lookUp(ctx context.Context, l Lease) (Lease, error) {
	var a answer
	if err := c.send(ctx, "look up the token", http.MethodGet, "auth/token/lookup-self", l.Token, nil, &a); err != nil {
		return Lease{}, err
	}
	var d struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	if json.Unmarshal(a.Data, &d) != nil {
		return Lease{}, errors.New("vault: the answer to the look-up of the token cannot be read")
	}
	return Lease{l.Token, time.Duration(d.TTL) * time.Second, d.Renewable}, nil
}

// EndpointAuth logs in by posting to a login endpoint.
type EndpointAuth struct {
	mount, suffix string
	body          func() (map[string]string, error)
}

// At returns the same login at another mount, such as "teams/approle" for the path auth/teams/approle.
func (e EndpointAuth) At(mount string) EndpointAuth {
	e.mount = strings.Trim(mount, "/")
	return e
}

// Login implements Auth.
func (e EndpointAuth) Login(
	ctx context.Context,
	post func(context.Context, string, any) (Lease, error),
) (Lease, error) {
	body, err := e.body()
	if err != nil {
		return Lease{}, err
	}
	return post(ctx, "auth/"+e.mount+"/"+e.suffix, body)
}

// Endpoint logs in at auth/MOUNT/SUFFIX with the fields that body returns at each login, for the login methods that
// have no function of their own: Endpoint("ldap", "login/ana", body).
func Endpoint(mount, suffix string, body func() (map[string]string, error)) EndpointAuth {
	return EndpointAuth{strings.Trim(mount, "/"), strings.Trim(suffix, "/"), body}
}

// AppRole logs in as an application, at the mount approle; At names another.
func AppRole(roleID, secretID string) EndpointAuth {
	s := secret.New(secretID)
	return Endpoint("approle", "login", func() (map[string]string, error) {
		return map[string]string{"role_id": roleID, "secret_id": s.Reveal()}, nil
	})
}

// serviceAccount is where Kubernetes mounts the token of a pod.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Kubernetes logs in with the service account of the pod, at the mount kubernetes; At names another. The token file is
// read at every login, because Kubernetes replaces it. An empty path means where Kubernetes mounts it.
func Kubernetes(role, tokenFile string) EndpointAuth {
	if tokenFile == "" {
		tokenFile = serviceAccount
	}
	return Endpoint("kubernetes", "login", func() (map[string]string, error) {
		jwt, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, errors.New("vault: the token of the service account cannot be read")
		}
		return map[string]string{"role": role, "jwt": strings.TrimSpace(string(jwt))}, nil
	})
}

// token returns a token that has not expired, and logs in when there is none. One caller logs in, the others wait.
func (c *Client) token(ctx context.Context) (secrets.Secret, error) {
	if err := c.take(ctx); err != nil {
		return secrets.Secret{}, err
	}
	defer c.give()
	if !c.lease.Token.IsZero() && (c.lease.TTL == 0 || time.Now().Before(c.expires)) {
		return c.lease.Token, nil
	}
	l, err := c.login(ctx)
	if err != nil {
		return secrets.Secret{}, err
	}
	c.hold(l)
	return l.Token, nil
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

// hold stores a lease and passes it to the renewing goroutine. c.turn must be held.
func (c *Client) hold(l Lease) {
	c.lease, c.expires = l, time.Now().Add(l.TTL)
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
func (c *Client) forget(ctx context.Context, token secrets.Secret) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.give()
	if c.lease.Token.Reveal() == token.Reveal() {
		c.lease = Lease{}
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
			if l.TTL > 0 {
				due = time.After(l.TTL * 2 / 3)
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
	if old.Token.IsZero() { // a caller was refused with it, and is logging in
		return nil
	}
	l, err := c.renewed(ctx, old)
	if err == nil {
		err = c.take(ctx)
	}
	if err == nil {
		if c.lease.Token.Reveal() == old.Token.Reveal() { // else a caller has logged in meanwhile
			c.hold(l)
		}
		c.give()
		return nil
	}
	if errors.Is(err, ErrDenied) && c.relogs() { // revoked: callers see it too, and one of us logs in for all
		if err = c.forget(ctx, old.Token); err == nil {
			if _, err = c.token(ctx); err == nil {
				return nil
			}
		}
	}
	if c.ctx.Err() == nil {
		c.cfg.Logger.Error("vault: the token could not be renewed", "error", err)
	}
	return time.After(max(time.Until(expires)/3, 5*time.Second))
}

func (c *Client) renewed(ctx context.Context, old Lease) (Lease, error) {
	err := errors.New("vault: the token is not renewable")
	if old.Renewable {
		var a answer
		if err = c.send(ctx, "renew the token", http.MethodPost, "auth/token/renew-self", old.Token, map[string]string{},
			&a); err == nil {
			l, err := a.lease()
			if err == nil && (l.TTL > old.TTL/10 || !c.relogs()) { // near the end of its longest life each renewal is shorter
				return l, nil
			}
		}
		if errors.Is(err, ErrDenied) {
			return Lease{}, err
		}
	}
	if c.relogs() {
		return c.login(ctx)
	}
	return Lease{}, err
}
