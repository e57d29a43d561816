package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sillar-go/sillar/authn/secrets"
	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/secret"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 4 << 20

// Data is one version of a secret.
type Data struct {
	// Version counts from 1.
	Version int
	values  secret.Value[map[string]any]
}

// Keys returns the names of the values, in order.
func (d *Data) Keys() []string { return slices.Sorted(maps.Keys(d.values.Reveal())) }

// Get returns a value that is a string as it is, and every other value as JSON, numbers with their digits.
func (d *Data) Get(key string) (secrets.Secret, bool) {
	v, ok := d.values.Reveal()[key]
	if !ok {
		return secrets.Secret{}, false
	}
	if s, isText := v.(string); isText {
		return secret.New(s), true
	}
	text, err := json.Marshal(v)
	if err != nil { // it came out of JSON
		return secrets.Secret{}, false
	}
	return secret.New(string(text)), true
}

// Read returns the newest version of a secret, or what was read within Config.CacheFor.
func (c *Client) Read(ctx context.Context, mount, path string) (*Data, error) {
	at, err := location(mount, path)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	hit, ok := c.cache[at]
	c.mu.Unlock()
	if ok && time.Since(hit.at) < c.cfg.CacheFor {
		return hit.data, nil
	}
	d, err := c.read(ctx, at, 0)
	if err == nil && c.cfg.CacheFor > 0 {
		c.mu.Lock()
		c.cache[at] = cached{d, time.Now()}
		c.mu.Unlock()
	}
	return d, err
}

// ReadVersion returns one version of a secret. It is not cached.
func (c *Client) ReadVersion(ctx context.Context, mount, path string, version int) (*Data, error) {
	at, err := location(mount, path)
	if err != nil {
		return nil, err
	}
	return c.read(ctx, at, version)
}

func (c *Client) read(ctx context.Context, at string, version int) (*Data, error) {
	if version > 0 {
		at += "?version=" + strconv.Itoa(version)
	}
	var a struct {
		Data struct {
			Data     map[string]any `json:"data"`
			Metadata struct {
				Version int `json:"version"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if err := c.call(ctx, "read a secret", http.MethodGet, at, nil, &a); err != nil {
		return nil, err
	}
	if a.Data.Data == nil { // deleted
		return nil, &Error{Op: "read a secret", Err: ErrNotFound}
	}
	return &Data{Version: a.Data.Metadata.Version, values: secret.New(a.Data.Data)}, nil
}

// AnyVersion as Write's version replaces whatever is there.
const AnyVersion = -1

// Write makes a new version of a secret and returns its number. It must follow the given version, 0 for a secret that
// does not exist; otherwise nothing changes and the error matches ErrConflict. When the answer to a try was lost, the
// next try may meet this very write: read again before you take ErrConflict for the write of another process.
func (c *Client) Write(ctx context.Context, mount, path string, values map[string]any, version int) (int, error) {
	at, err := location(mount, path)
	if err != nil {
		return 0, err
	}
	body := map[string]any{"data": values}
	if version != AnyVersion {
		body["options"] = map[string]int{"cas": version}
	}
	var a struct {
		Data struct {
			Version int `json:"version"`
		} `json:"data"`
	}
	const op = "write a secret"
	err = c.call(ctx, op, http.MethodPost, at, body, &a)
	c.mu.Lock()
	delete(c.cache, at)
	c.mu.Unlock()
	if e, ok := errors.AsType[*Error](err); ok && e.Op == op && e.Status == http.StatusBadRequest &&
		version != AnyVersion {
		e.Err = ErrConflict // Vault has no status of its own for it
	}
	return a.Data.Version, err
}

// Watch reads a secret at the given interval and calls fn with it, first at once and then whenever its version has
// changed, until ctx ends. A read that fails is logged, and tried again at the next interval.
func (c *Client) Watch(ctx context.Context, mount, path string, every time.Duration, fn func(*Data)) error {
	at, err := location(mount, path)
	if err != nil {
		return err
	}
	if every <= 0 {
		return errors.New("vault: Watch needs an interval")
	}
	seen := 0
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		d, err := c.read(ctx, at, 0)
		if err == nil && d.Version != seen {
			seen = d.Version
			c.mu.Lock()
			delete(c.cache, at)
			c.mu.Unlock()
			fn(d)
		} else if err != nil && ctx.Err() == nil {
			c.cfg.Logger.ErrorContext(ctx, "vault: a watched secret cannot be read", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// location returns the path of a secret's data. Parts that would lead elsewhere are refused.
func location(mount, path string) (string, error) {
	parts := strings.Split(mount, "/")
	parts = append(append(parts, "data"), strings.Split(path, "/")...)
	for i, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "\\\x00") {
			return "", fmt.Errorf("%w: a mount or path of a secret has an empty or relative part", secrets.ErrReference)
		}
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/"), nil
}

// call sends a request with the token, and once more with a fresh one when the token is refused.
func (c *Client) call(ctx context.Context, op, method, path string, in, out any) error {
	for retried := false; ; retried = true {
		token, err := c.token(ctx)
		if err != nil {
			return err
		}
		err = c.send(ctx, op, method, path, token, in, out)
		if !errors.Is(err, ErrDenied) || retried || !c.relogs() {
			return err
		}
		if err := c.forget(ctx, token); err != nil {
			return fmt.Errorf("vault: %s: %w", op, err)
		}
	}
}

// send sends a request, several times if need be.
func (c *Client) send(ctx context.Context, op, method, path string, token secrets.Secret, in, out any) error {
	pause := backoff.Exponential(200*time.Millisecond, 5*time.Second)
	for attempt := 1; ; attempt++ {
		wait, err := c.once(ctx, op, method, path, token, in, out)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return fmt.Errorf("vault: %s: %w", op, cause)
		}
		if err == nil || !errors.Is(err, ErrUnavailable) || attempt >= c.cfg.Attempts {
			return err
		}
		if backoff.Sleep(ctx, max(wait, pause.Delay(attempt))) != nil {
			return err // it says more than that the wait was cut short
		}
	}
}

// once sends a request. wait is how long the server asks to wait.
func (c *Client) once(
	ctx context.Context,
	op, method, path string,
	token secrets.Secret,
	in, out any,
) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return 0, errors.New("vault: the values cannot be written as JSON")
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+"/v1/"+path, body)
	if err != nil {
		return 0, &Error{Op: op}
	}
	req.Header.Set("X-Vault-Request", "true")
	if !token.IsZero() {
		req.Header.Set("X-Vault-Token", token.Reveal())
	}
	if c.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.cfg.Namespace)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, &Error{Op: op, Err: ErrUnavailable}
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if res.StatusCode/100 != 2 {
		s, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return min(
				time.Duration(max(s, 0))*time.Second,
				time.Minute,
			), &Error{
				Op:     op,
				Status: res.StatusCode,
				Err:    meaning(res.StatusCode),
			}
	}
	if err != nil || len(data) > maxAnswer {
		return 0, &Error{Op: op, Status: res.StatusCode, Err: ErrUnavailable}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a secret may be a number with more digits than a float64 holds
	if len(data) > 0 && d.Decode(out) != nil {
		return 0, &Error{Op: op, Status: res.StatusCode}
	}
	return 0, nil
}

func meaning(status int) error {
	switch {
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return ErrDenied
	case status == http.StatusTooManyRequests,
		status == http.StatusPreconditionFailed,
		status >= 500: // 412: a replica lags
		return ErrUnavailable
	}
	return nil
}
