package simulation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	customerCount = 6
	// quietWithin bounds the wait for the end of all sagas and messages: services were down for minutes, and pauses of
	// retries grow.
	quietWithin = 2 * time.Hour
)

// caller is a client of the shop.
type caller struct {
	w      *world
	client *http.Client
	token  string
}

// call calls until there is an answer that is no failure.
func (c *caller) call(ctx context.Context, method, at, key string, body any, into any) (status int) {
	for ctx.Err() == nil {
		if c.token == "" {
			c.token = c.w.signedIn()
		}
		if c.token == "" {
			c.login(ctx)
		}
		raw, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		status, raw, err := c.once(ctx, method, at, key, "application/json", raw)
		switch {
		case err != nil || status >= 500 || status == http.StatusTooManyRequests:
			_ = sleep(ctx, c.w.between("retry of a customer", 100*time.Millisecond, 3*time.Second))
			continue
		case status == http.StatusUnauthorized:
			c.token = ""
			c.w.signIn("")
			_ = sleep(ctx, time.Second)
			continue
		case status < 300:
			if err := json.Unmarshal(raw, into); err != nil {
				c.w.findf("%s %s: %d: %v: %s", method, at, status, err, raw)
			}
		default:
			c.w.logf("%s %s: %d %s", method, at, status, raw)
		}
		return status
	}
	return 0
}

func (c *caller) once(ctx context.Context, method, at, key, kind string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+c.token)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, raw, err
}

func (c *caller) login(ctx context.Context) {
	form := url.Values{"grant_type": {"password"}, "username": {"ana"}, "password": {password}}.Encode()
	for ctx.Err() == nil {
		status, raw, err := c.once(ctx, "POST", "http://users:80/token", "", "application/x-www-form-urlencoded",
			[]byte(form))
		var pair struct {
			AccessToken string `json:"access_token"`
		}
		if err == nil && status == 200 && json.Unmarshal(raw, &pair) == nil {
			c.token = pair.AccessToken
			c.w.signIn(c.token)
			return
		}
		_ = sleep(ctx, time.Second)
	}
}

type order struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

var (
	goods   = []string{"prod-lamp", "prod-mug", "prod-chair", "prod-notebook", "prod-kettle", "prod-rug"}
	methods = []string{"pm_card_visa", "pm_card_visa", "pm_card_visa", "pm_card_slow", "pm_card_flaky",
		"pm_card_declined"}
)

func pick[T any](w *world, place string, from []T) T {
	return from[int(w.draw.Part(place)*float64(len(from)))]
}
