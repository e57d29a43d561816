package inventory

import (
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/shoptest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
)

var databases = map[string]func(testing.TB) string{"sqlite": shoptest.SQLite, "postgresql": testenv.Postgres}

// stocked waits until a product's stock is there.
func stocked(t *testing.T, url, token string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if (shoptest.Call{Method: "GET", URL: url, Token: token}).Do(t).Code == 200 {
			return
		}
	}
	t.Fatalf("no stock at %s", url)
}

func TestInventoryFollowsOrders(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := shoptest.New(t)
			s, err := New(t.Context(), shop.Config("inventory", dsn(t)))
			shoptest.Run(t, s, err)
			base := s.URL() + "/api/v1/inventory"
			admin, ana, service := shop.User(t, "u-admin", "admin"), shop.User(t, "u-ana", "customer"), shoptest.Service(t, s)

			// The event comes twice, once under a new id: the stock is made once.
			for _, id := range []string{"m-1", "m-1", "m-2"} {
				for {
					err := shop.Broker.Publish(t.Context(), "products.created", productCreated{"lamp", 5}, messaging.WithID(id))
					if err == nil {
						break
					}
					time.Sleep(5 * time.Millisecond) // the router is not there yet
				}
			}
			for topic, e := range map[string]productCreated{"products.updated": {"ghost", 1}, "products.deleted": {"ghost", 1},
				"products.created": {"debt", -1}} {
				if err := shop.Broker.Publish(t.Context(), topic, e); err != nil {
					t.Fatal(err)
				}
			}
			if err := shop.Broker.Publish(t.Context(), "products.created", productCreated{"cup", 1}); err != nil {
				t.Fatal(err)
			}
			stocked(t, base+"/cup", ana)
			for _, product := range []string{"ghost", "debt"} {
				shoptest.Call{Method: "GET", URL: base + "/" + product, Token: ana}.Do(t).Want(t, product, 404, "not-found")
			}
			if dead, err := shop.Broker.DeadLetters(t.Context(), "inventory", 10); err != nil || len(dead) != 1 {
				t.Errorf("dead letters: %v, %v", dead, err)
			}
			is := func(when, product string, onHand, reserved float64) {
				t.Helper()
				a := shoptest.Call{Method: "GET", URL: base + "/" + product, Token: ana}.Do(t)
				if a.Body["on_hand"] != onHand || a.Body["reserved"] != reserved || a.Body["available"] != onHand-reserved {
					t.Errorf("%s: %s is %s, want %v on hand and %v reserved", when, product, a.Raw, onHand, reserved)
				}
			}
			is("at first", "lamp", 5, 0)
			items := func(order string, lamps, cups int) string {
				return fmt.Sprintf(`{"order_id":%q,"items":[{"product_id":"lamp","quantity":%d},{"product_id":"cup","quantity":%d}]}`, order, lamps, cups)
			}
			reserve := base + "/reserve"
			for _, c := range []struct {
				what, method, url, token, key, body string
				code                                int
				want                                []string
			}{
				{"check without a token", "POST", base + "/check", "", "", `{"items":[{"product_id":"lamp","quantity":1}]}`, 401,
					nil},
				{"check of nothing", "POST", base + "/check", ana, "", `{"items":[]}`, 422, []string{"validation", "items"}},
				{"check of a half", "POST", base + "/check", ana, "", `{"items":[{"product_id":"lamp","quantity":0.5}]}`, 422,
					[]string{"validation", "items[0].quantity"}},
				{"check twice", "POST", base + "/check", ana, "",
					`{"items":[{"product_id":"lamp","quantity":1},{"product_id":"lamp","quantity":1}]}`, 422,
					[]string{"validation", "items[1].product_id"}},
				{"reserve as customer", "POST", reserve, ana, "s1/r/do", items("o1", 1, 1), 403, nil},
				{"reserve without a key", "POST", reserve, service, "", items("o1", 1, 1), 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"reserve with an undo", "POST", reserve, service, "s1/r/undo", items("o1", 1, 1), 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"reserve too much", "POST", reserve, service, "s1/r/do", items("o1", 2, 2), 409,
					[]string{"out-of-stock", "items[1].quantity"}},
				{"reserve what is unknown", "POST", reserve, service, "s1/r/do",
					`{"order_id":"o1","items":[{"product_id":"no","quantity":1}]}`, 409,
					[]string{"out-of-stock", "items[0].quantity"}},
				{"the refusal is not marked", "POST", reserve, service, "s1/r/do", items("o1", 2, 1), 200, nil},
				{"again", "POST", reserve, service, "s1/r/do", items("o1", 2, 1), 200, nil},
				{"again, but other items", "POST", reserve, service, "s1/r/do", items("o1", 1, 1), 422,
					[]string{"idempotency-key"}},
				{"again, but another order", "POST", reserve, service, "s1/r/do", items("o9", 2, 1), 422,
					[]string{"idempotency-key"}},
				{"the same order by another saga", "POST", reserve, service, "s9/r/do", items("o1", 2, 1), 409,
					[]string{"reserved"}},
				{"less than is reserved", "PUT", base + "/lamp", admin, "", `{"on_hand":1}`, 409, []string{"reserved", "on_hand"}},
				{"less than nothing", "PUT", base + "/lamp", admin, "", `{"on_hand":-1}`, 422, []string{"validation", "on_hand"}},
				{"stock as customer", "PUT", base + "/lamp", ana, "", `{"on_hand":9}`, 403, nil},
				{"stock of nothing", "PUT", base + "/no", admin, "", `{"on_hand":9}`, 404, []string{"not-found"}},
				{"list as customer", "GET", base, ana, "", "", 403, nil},
				{"list", "GET", base + "?limit=1", admin, "", "", 200, nil},
				{"list by a forgery", "GET", base + "?after=x", admin, "", "", 400, []string{"query"}},
				{"release as customer", "DELETE", reserve + "/res-o1", ana, "s1/r/undo", "", 403, nil},
				{"release with a do", "DELETE", reserve + "/res-o1", service, "s1/r/do", "", 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"commit as customer", "POST", reserve + "/res-o1/commit", ana, "s1/c/do", "", 403, nil},
				{"commit of nothing", "POST", reserve + "/res-no/commit", service, "s1/c/do", "", 404, []string{"not-found"}},
				{"restock without a key", "POST", reserve + "/res-o1/restock", service, "", "", 422,
					[]string{"validation", "header.Idempotency-Key"}},
			} {
				shoptest.Call{Method: c.method, URL: c.url, Token: c.token, Key: c.key, Body: c.body}.Do(t).Want(t, c.what, c.code,
					c.want...)
			}
			is("once reserved", "lamp", 5, 2)
			is("once reserved", "cup", 1, 1)
			a := shoptest.Call{Method: "POST", URL: base + "/check", Token: ana,
				Body: `{"items":[{"product_id":"lamp","quantity":3},{"product_id":"cup","quantity":1}]}`}.Do(t)
			if a.Code != 200 || a.Body["available"] != false || a.Body["check_id"] == "" ||
				fmt.Sprint(a.Body["items"]) != "[map[available:3 product_id:lamp quantity:3] map[available:0 product_id:cup "+
					"quantity:1]]" {
				t.Errorf("check: %d %s", a.Code, a.Raw)
			}

			end := func(what, method, path, key string, code int, status string) {
				t.Helper()
				for range 2 { // each comes twice
					a := shoptest.Call{Method: method, URL: reserve + "/" + path, Token: service, Key: key}.Do(t)
					a.Want(t, what, code)
					if status != "" && a.Body["status"] != status {
						t.Errorf("%s: %s, want %s", what, a.Raw, status)
					}
				}
			}
			end("release", "DELETE", "res-o1", "s1/r/undo", 204, "")
			is("released", "lamp", 5, 0)
			is("released", "cup", 1, 0)
			end("commit of what was released", "POST", "res-o1/commit", "s1/c/do", 200, "released")
			is("still released", "lamp", 5, 0)

			end("release of what never came", "DELETE", "res-o2", "s2/r/undo", 204, "")
			shoptest.Call{Method: "POST", URL: reserve, Token: service, Key: "s2/r/do", Body: items("o2", 1, 1)}.Do(t).Want(t,
				"reserve, too late", 409, "too-late")
			is("reserve after release", "lamp", 5, 0)

			shoptest.Call{Method: "POST", URL: reserve, Token: service, Key: "s3/r/do", Body: items("o3", 3, 1)}.Do(t).Want(t,
				"reserve", 200)
			end("commit", "POST", "res-o3/commit", "s3/c/do", 200, "committed")
			is("committed", "lamp", 2, 0)
			is("committed", "cup", 0, 0)
			shoptest.Call{Method: "DELETE", URL: reserve + "/res-o3", Token: service, Key: "s3/r/undo"}.Do(t).Want(t,
				"release of what has left", 409, "state")
			end("restock", "POST", "res-o3/restock", "c3/restock/do", 200, "restocked")
			is("restocked", "lamp", 5, 0)
			is("restocked", "cup", 1, 0)

			shoptest.Call{Method: "POST", URL: reserve, Token: service, Key: "s4/r/do", Body: items("o4", 3, 1)}.Do(t).Want(t,
				"reserve", 200)
			end("restock before the commit", "POST", "res-o4/restock", "c4/restock/do", 200, "released")
			end("commit after the restock", "POST", "res-o4/commit", "s4/c/do", 200, "released")
			is("back", "lamp", 5, 0)
			is("back", "cup", 1, 0)

			shoptest.Call{Method: "PUT", URL: base + "/lamp", Token: admin, Body: `{"on_hand":7}`}.Do(t).Want(t, "counted", 200)
			is("counted", "lamp", 7, 0)
		})
	}
}
