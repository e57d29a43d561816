package live

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// cards are the test cards that an order can be paid with.
var cards = []struct{ ID, Name string }{
	{"pm_card_visa", "a good card"},
	{"pm_card_declined", "a declined card"},
	{"pm_card_insufficient", "an empty card"},
	{"pm_card_slow", "a slow card"},
	{"pm_card_flaky", "a flaky card"},
}

// controls returns the actions of the page by the last segment of the path. Each returns a sentence for the notes.
func (p *Page) controls() map[string]func(r *http.Request) (string, error) {
	return map[string]func(r *http.Request) (string, error){
		"place":    p.doPlace,
		"load":     p.doLoad,
		"payments": p.doPayments,
		"broker":   p.doBroker,
		"race":     p.begin("Twelve orders for the last three of a product are sent at once.", p.traffic.race),
		"repeat":   p.begin("One request is sent three times at once.", p.traffic.repeat),
		"heal":     p.doHeal,
	}
}

// begin starts an action that reports its own result in the notes.
func (p *Page) begin(what string, do func(context.Context) error) func(*http.Request) (string, error) {
	return func(*http.Request) (string, error) { return what, p.traffic.start(do) }
}

// choice returns a field of the form, or an error unless it has one of the listed values.
func choice(r *http.Request, field string, of ...string) (string, error) {
	v := r.PostFormValue(field)
	if !slices.Contains(of, v) {
		return "", platform.Invalid(field, "is one of "+strings.Join(of, ", "))
	}
	return v, nil
}

func (p *Page) doPlace(r *http.Request) (string, error) {
	ids := make([]string, len(cards))
	for i, c := range cards {
		ids[i] = c.ID
	}
	card, err := choice(r, "card", ids...)
	if err != nil {
		return "", err
	}
	count, err := choice(r, "count", "1", "10")
	if err != nil {
		return "", err
	}
	n := map[string]int{"1": 1, "10": 10}[count]
	for range n {
		if err := p.traffic.start(func(ctx context.Context) error { return p.traffic.any(ctx, card) }); err != nil {
			return "", err
		}
	}
	return plural(n, "order") + " placed.", nil
}

func (p *Page) doLoad(*http.Request) (string, error) {
	running, err := p.traffic.load()
	if err != nil || running {
		return fmt.Sprintf("Ten orders a second for %d seconds.", int(loadFor.Seconds())), err
	}
	return "The load stops.", nil
}

func (p *Page) doPayments(r *http.Request) (string, error) {
	if !p.faults {
		return "", platform.Fail(http.StatusNotFound, "not-found", "faults are off: see --faults")
	}
	mode, err := choice(r, "mode", "ok", "slow", "down")
	if err != nil {
		return "", err
	}
	if err := p.setPayments(r.Context(), mode); err != nil {
		return "", err
	}
	return map[string]string{"ok": "The payment processor is normal.",
		"slow": "The payment processor takes three seconds longer.",
		"down": "The payment processor does not answer."}[mode], nil
}

func (p *Page) setPayments(ctx context.Context, mode string) error {
	if err := p.inside.put(ctx, "payments", "/api/v1/processor", map[string]string{"mode": mode}); err != nil {
		return err
	}
	p.set(func(v *view) { v.state["payments"] = mode })
	return nil
}

func (p *Page) doBroker(r *http.Request) (string, error) {
	mode, err := choice(r, "mode", brokerUp, brokerTwice, brokerDown)
	if err != nil {
		return "", err
	}
	p.broker.set(mode)
	p.set(func(v *view) { v.state["broker"] = mode })
	return map[string]string{brokerUp: "The broker is up: outboxes retry within 15 seconds.",
		brokerTwice: "The broker delivers every event twice.",
		brokerDown:  "The broker is down: events wait in the outboxes."}[mode], nil
}

func (p *Page) doHeal(r *http.Request) (string, error) {
	p.broker.set(brokerUp)
	p.set(func(v *view) { v.state["broker"] = brokerUp })
	if p.traffic.loading() {
		if _, err := p.traffic.load(); err != nil {
			return "", err
		}
	}
	if p.faults {
		if err := p.setPayments(r.Context(), "ok"); err != nil {
			return "", err
		}
	}
	return "Faults are reset. Breakers and outboxes recover by themselves.", nil
}

// control handles a form. A script gets the sentence; a browser without scripting is redirected to the page.
func (p *Page) control(do func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
		said, err := do(r)
		if err != nil {
			p.refused(w, r, err)
			return
		}
		p.log.InfoContext(r.Context(), "a control of the page was used", "path", r.URL.Path, "outcome", said)
		p.note("%s", said)
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
