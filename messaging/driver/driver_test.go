package driver_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

type order struct{ ID string }

func TestNewEnvelopeFillsAndChecks(t *testing.T) {
	publish := func(source, topic string, payload any, opts ...messaging.Option) (messaging.Envelope, error) {
		e, err := messaging.NewEnvelope(topic, payload, opts...)
		if err != nil {
			return e, err
		}
		return driver.Fill(t.Context(), e, source, nil)
	}
	e, err := publish("orders", "orders.created", order{"1"}, messaging.WithKey("k"),
		messaging.WithHeader("X-Tenant", "blue"))
	if err != nil {
		t.Fatal(err)
	}
	if e.ID == "" || e.Source != "orders" || e.Time.IsZero() || e.ContentType != "application/json" || e.Key != "k" ||
		string(e.Body) != `{"ID":"1"}` || e.Headers["x-tenant"] != "blue" {
		t.Fatalf("%+v", e)
	}
	e.Headers = map[string]string{"Upper": "1"}
	if e, err = driver.Fill(t.Context(), e, "", nil); err != nil || e.Headers["upper"] != "1" {
		t.Fatalf("%v %v", e.Headers, err)
	}
	for name, bad := range map[string]struct {
		source, topic string
		payload       any
	}{
		"no topic": {"s", "", 1}, "no source": {"", "a", 1}, "wildcard": {"s", "a.*", 1}, "space": {"s", "a b", 1},
		"no UTF-8": {"s", "a\xff", 1}, "NUL": {"s", "a\x00", 1}, "a source of no text": {"\xff", "a", 1},
		"too long": {"s", strings.Repeat("a", 256), 1}, "not JSON": {"s", "a", func() {}},
	} {
		if _, err := publish(bad.source, bad.topic, bad.payload); !errors.Is(err, messaging.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatchError(t *testing.T) {
	if driver.Batch([]error{nil, nil}) != nil {
		t.Fatal("a batch without errors is an error")
	}
	err := driver.Batch([]error{nil, fmt.Errorf("x: %w", messaging.ErrNacked), nil})
	var b *messaging.BatchError
	if !errors.Is(err, messaging.ErrNacked) || !errors.As(err, &b) || b.Errors[0] != nil || b.Errors[1] == nil {
		t.Fatal(err)
	}
	if messaging.Permanent(nil) != nil || messaging.RetryAfter(nil, 1) != nil {
		t.Fatal("nil became an error")
	}
}

// Match agrees with a translation to regular expressions.
func TestMatchAgreesWithRegularExpressions(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "ab"})
	part := rapid.SampledFrom([]string{"a", "b", "ab", "*", "#"})
	rapid.Check(t, func(t *rapid.T) {
		topic := strings.Join(rapid.SliceOfN(word, 1, 6).Draw(t, "topic"), ".")
		parts := rapid.SliceOfN(part, 1, 5).Draw(t, "pattern")
		expr := "^"
		for _, p := range parts { // every word is preceded by a dot, in the expression and in the subject
			switch p {
			case "*":
				expr += `\.[^.]+`
			case "#":
				expr += `(\.[^.]+)*`
			default:
				expr += `\.` + p
			}
		}
		want := regexp.MustCompile(expr + "$").MatchString("." + topic)
		if got := driver.Match(strings.Join(parts, "."), topic); got != want {
			t.Fatalf("Match(%q, %q) = %v", strings.Join(parts, "."), topic, got)
		}
	})
}

// What was unknown is not known by the refusal of a later attempt.
func TestAgainKeepsAnUnknownOutcome(t *testing.T) {
	unknown := fmt.Errorf("%w: cut", messaging.ErrUnknownOutcome)
	for name, c := range map[string]struct{ before, last, want, not error }{
		"confirmed":            {unknown, nil, nil, messaging.ErrUnknownOutcome},
		"refused":              {unknown, messaging.ErrNacked, messaging.ErrUnknownOutcome, messaging.ErrNacked},
		"too large":            {unknown, messaging.ErrInvalid, messaging.ErrUnknownOutcome, messaging.ErrInvalid},
		"blocked":              {unknown, messaging.ErrBlocked, messaging.ErrUnknownOutcome, messaging.ErrNacked},
		"blocked, which shows": {unknown, messaging.ErrBlocked, messaging.ErrBlocked, messaging.ErrNacked},
		"refused at first":     {nil, messaging.ErrNacked, messaging.ErrNacked, messaging.ErrUnknownOutcome},
		"refused twice":        {messaging.ErrBlocked, messaging.ErrNacked, messaging.ErrNacked, messaging.ErrUnknownOutcome},
		"unknown at last":      {messaging.ErrBlocked, unknown, messaging.ErrUnknownOutcome, messaging.ErrNacked},
	} {
		if got := driver.Again(c.before, c.last); !errors.Is(got, c.want) || errors.Is(got, c.not) {
			t.Errorf("%s: got %v, want %v and not %v", name, got, c.want, c.not)
		}
	}
}
