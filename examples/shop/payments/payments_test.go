package payments

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/examples/shop/internal/shoptest"
	"github.com/sillar-go/sillar/internal/testenv"
)

var databases = map[string]func(testing.TB) string{"sqlite": shoptest.SQLite, "postgresql": testenv.Postgres}

func body(order, method string, cents int) string {
	return fmt.Sprintf(`{"order_id":%q,"user_id":"u-ana","amount_cents":%d,"payment_method":%q}`, order, cents, method)
}

func TestPaymentsChargeAndRefundOnce(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := shoptest.New(t)
			cfg := shop.Config("payments", dsn(t))
			cfg.Faults = true
			s, err := New(t.Context(), cfg)
			shoptest.Run(t, s, err)
			base := s.URL() + "/api/v1/payments"
			admin, ana, bob, service := shop.User(t, "u-admin", "admin"), shop.User(t, "u-ana", "customer"),
				shop.User(t, "u-bob", "customer"), shoptest.Service(t, s)
			for _, c := range []struct {
				what, method, path, token, key, body string
				code                                 int
				want                                 []string
			}{
				{"pay without a token", "POST", "", "", "s1/p/do", body("o1", "pm_card_visa", 100), 401, nil},
				{"pay as customer", "POST", "", ana, "s1/p/do", body("o1", "pm_card_visa", 100), 403, nil},
				{"pay without a key", "POST", "", service, "", body("o1", "pm_card_visa", 100), 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"pay with an undo", "POST", "", service, "s1/p/undo", body("o1", "pm_card_visa", 100), 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"pay nothing", "POST", "", service, "s1/p/do", body("o1", "pm_card_visa", 0), 422,
					[]string{"validation", "amount_cents"}},
				{"an unknown method", "POST", "", service, "s1/p/do", body("o1", "gold", 100), 422,
					[]string{"validation", "payment_method"}},
				{"a field too many", "POST", "", service, "s1/p/do",
					`{"order_id":"o1","user_id":"u","amount_cents":1,"payment_method":"x","status":"captured"}`, 422,
					[]string{"validation", "status"}},
				{"declined", "POST", "", service, "s1/p/do", body("o1", "pm_card_declined", 100), 402,
					[]string{"card-declined", "payment_method"}},
				{"declined again", "POST", "", service, "s1/p/do", body("o1", "pm_card_declined", 100), 402,
					[]string{"card-declined"}},
				{"insufficient", "POST", "", service, "s2/p/do", body("o2", "pm_card_insufficient", 100), 402,
					[]string{"card-declined"}},
				{"a decline is no payment", "POST", "/pay-o1/refund", service, "c1/refund/do", "", 409, []string{"not-captured"}},
				{"another try of the order", "POST", "", service, "s1b/p/do", body("o1", "pm_card_visa", 100), 201, nil},
				{"again", "POST", "", service, "s1b/p/do", body("o1", "pm_card_visa", 100), 201, nil},
				{"again, over more", "POST", "", service, "s1b/p/do", body("o1", "pm_card_visa", 200), 422,
					[]string{"idempotency-key", "header.Idempotency-Key"}},
				{"again, for another order", "POST", "", service, "s1b/p/do", body("o9", "pm_card_visa", 100), 422,
					[]string{"idempotency-key"}},
				{"paid twice", "POST", "", service, "s1c/p/do", body("o1", "pm_card_visa", 100), 409, []string{"already-paid"}},
				{"flaky once", "POST", "", service, "s3/p/do", body("o3", "pm_card_flaky", 50), 503,
					[]string{"processor-unavailable"}},
				{"flaky twice", "POST", "", service, "s3/p/do", body("o3", "pm_card_flaky", 50), 503, nil},
				{"flaky, at last", "POST", "", service, "s3/p/do", body("o3", "pm_card_flaky", 50), 201, nil},
				{"own payment", "GET", "/pay-o1", ana, "", "", 200, nil},
				{"another's payment", "GET", "/pay-o1", bob, "", "", 404, []string{"not-found"}},
				{"any payment as admin", "GET", "/pay-o1", admin, "", "", 200, nil},
				{"list as customer", "GET", "", ana, "", "", 403, nil},
				{"a limit too high", "GET", "?limit=1000", admin, "", "", 422, []string{"validation", "query.limit"}},
				{"refund as customer", "POST", "/pay-o1/refund", ana, "s1b/p/undo", "", 403, nil},
				{"refund without a key", "POST", "/pay-o1/refund", service, "", "", 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"refund by no saga", "POST", "/pay-o1/refund", service, "x", "", 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"refund of nothing", "POST", "/pay-no/refund", service, "c0/refund/do", "", 404, []string{"not-found"}},
				{"compensation of another payment", "POST", "/pay-o3/refund", service, "s1b/p/undo", "", 422,
					[]string{"idempotency-key"}},
			} {
				shoptest.Call{Method: c.method, URL: base + c.path, Token: c.token, Key: c.key, Body: c.body}.Do(t).Want(t, c.what,
					c.code, c.want...)
			}
			held := func(when string, cents float64) {
				t.Helper()
				if a := (shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/processor",
					Token: admin}).Do(t); a.Body["held_cents"] != cents {
					t.Errorf("%s the processor holds %s, want %v", when, a.Raw, cents)
				}
			}
			refund := func(what, id, key, status string) {
				t.Helper()
				for range 2 { // each comes twice
					a := shoptest.Call{Method: "POST", URL: base + "/" + id + "/refund", Token: service, Key: key, Body: "{}"}.Do(t)
					if a.Code != 200 || a.Body["payment_id"] != id || a.Body["status"] != status {
						t.Errorf("%s: %d %s, want %s", what, a.Code, a.Raw, status)
					}
				}
			}
			pay := func(what, key, order string, code int, want ...string) {
				t.Helper()
				shoptest.Call{Method: "POST", URL: base, Token: service, Key: key, Body: body(order, "pm_card_visa",
					100)}.Do(t).Want(t, what, code, want...)
			}
			held("once paid", 150)
			a := shoptest.Call{Method: "GET", URL: base + "?order_id=o2", Token: admin}.Do(t)
			if items, _ := a.Body["items"].([]any); len(items) != 1 ||
				!strings.Contains(a.Raw, `"status":"declined","reason":"insufficient funds"`) ||
				strings.Contains(a.Raw, "s2/p/do") {
				t.Errorf("payments of o2: %s", a.Raw)
			}
			refund("compensation", "pay-o1", "s1b/p/undo", "refunded")
			held("once compensated", 50)
			pay("the payment again, when it was given back", "s1b/p/do", "o1", 201)
			held("still", 50)
			refund("compensation of what never came", "pay-o4", "s4/p/undo", "none")
			pay("too late", "s4/p/do", "o4", 409, "too-late")
			held("still", 50)
			refund("compensation of a charge that was refused", "pay-o1", "s1c/p/undo", "none")
			refund("cancellation", "pay-o3", "c3/refund/do", "refunded")
			held("once cancelled", 0)
			pay("a payment", "s5/p/do", "o5", 201)
			shoptest.Call{Method: "POST", URL: base + "/pay-o5/refund", Token: service, Key: "c3/refund/do"}.Do(t).Want(t,
				"a refund's key for another payment", 422, "idempotency-key")
			held("after a wrong refund", 100)

			processor := shoptest.Call{Method: "PUT", URL: s.URL() + "/api/v1/processor", Token: ana, Body: `{"mode":"down"}`}
			processor.Do(t).Want(t, "break the processor as customer", 403)
			processor.Token = admin
			processor.Do(t).Want(t, "break the processor", 200)
			pay("while it is down", "s6/p/do", "o6", 503, "processor-unavailable")
			shoptest.Call{Method: "POST", URL: base + "/pay-o5/refund", Token: service, Key: "s5/p/undo"}.Do(t).Want(t,
				"refund while it is down", 503)
			processor.Body = `{"mode":"broken"}`
			processor.Do(t).Want(t, "an unknown mode", 422, "validation", "mode")
			processor.Body = `{"mode":"ok"}`
			processor.Do(t).Want(t, "mend the processor", 200)
			refund("once mended", "pay-o5", "s5/p/undo", "refunded")
			pay("once mended", "s6/p/do", "o6", 201)
			held("in the end", 100)
		})
	}
}

func TestNoFaultsWithoutTheSwitch(t *testing.T) {
	shop := shoptest.New(t)
	s, err := New(t.Context(), shop.Config("payments", shoptest.SQLite(t)))
	shoptest.Run(t, s, err)
	shoptest.Call{Method: "PUT", URL: s.URL() + "/api/v1/processor", Token: shop.User(t, "u-admin", "admin"),
		Body: `{"mode":"down"}`}.Do(t).Want(t, "break the processor", 404)
}
