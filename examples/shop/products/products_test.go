package products_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/internal/shoptest"
	"github.com/sillar-go/sillar/examples/shop/inventory"
	"github.com/sillar-go/sillar/examples/shop/products"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// start runs products and, before it, inventory. The channel receives the events of products.
func start(t *testing.T, shop *shoptest.Shop, dsn string) (*platform.Service, <-chan messaging.Message[[]byte]) {
	t.Helper()
	inv, err := inventory.New(t.Context(), shop.Config("inventory", shoptest.SQLite(t)))
	shoptest.Run(t, inv, err)
	cfg := shop.Config("products", dsn)
	cfg.Peers.Inventory = inv.URL()
	s, err := products.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Router()
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan messaging.Message[[]byte], 100)
	messaging.HandleRaw(r.Group("test", messaging.GroupConfig{}), "products.*",
		func(_ context.Context, m messaging.Message[[]byte]) error {
			events <- m
			return nil
		})
	return shoptest.Run(t, s, nil), events
}

// next returns the next event, or "" when none comes within wait.
func next(reported <-chan messaging.Message[[]byte], wait time.Duration) (topic string, data map[string]any) {
	select {
	case m := <-reported:
		_ = json.Unmarshal(m.Data, &data)
		return m.Type, data
	case <-time.After(wait):
		return "", nil
	}
}

func TestProductsAPIAndEvents(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{"sqlite": shoptest.SQLite, "postgresql": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := shoptest.New(t)
			s, reported := start(t, shop, dsn(t))
			base := s.URL() + "/api/v1/products"
			admin, ana, service := shop.User(t, "u-admin", "admin"), shop.User(t, "u-ana", "customer"), shoptest.Service(t, s)

			seeded := map[string]bool{}
			for range products.Catalogue {
				topic, data := next(reported, time.Minute)
				id, _ := data["product_id"].(string)
				if topic != "products.created" || seeded[id] {
					t.Fatalf("reported %s %v", topic, data)
				}
				seeded[id] = true
			}
			tell := func(want, id string, fields map[string]any) {
				t.Helper()
				topic, data := next(reported, time.Minute)
				if topic != want || data["product_id"] != id {
					t.Errorf("reported %s %v, want %s of %s", topic, data, want, id)
				}
				for k, v := range fields {
					if data[k] != v {
						t.Errorf("reported %s: %s is %v, want %v", topic, k, data[k], v)
					}
				}
			}

			a := shoptest.Call{Method: "POST", URL: base, Token: admin,
				Body: `{"sku":"X-1","name":"Xylophone","price_cents":2000,"stock":3}`}.Do(t)
			id, _ := a.Body["id"].(string)
			if a.Code != 201 || id == "" || a.Body["active"] != true || a.Body["version"] != 1.0 {
				t.Fatalf("create: %d %s", a.Code, a.Raw)
			}
			tell("products.created", id, map[string]any{"sku": "X-1", "name": "Xylophone", "price_cents": 2000.0, "stock": 3.0})

			one := base + "/" + id
			item := func(id string, n int) string {
				return fmt.Sprintf(`{"order_id":"o1","items":[{"product_id":%q,"quantity":%d}]}`, id, n)
			}
			check := func(items string) string { return `{"items":[` + items + `]}` }
			// Published events reach inventory eventually.
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				a = shoptest.Call{Method: "POST", URL: base + "/check", Token: ana,
					Body: check(`{"product_id":"prod-rug","quantity":15},{"product_id":"` + id + `","quantity":3}`)}.Do(t)
				if a.Body["available"] == true {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("no stock: %d %s", a.Code, a.Raw)
				}
			}
			for _, c := range []struct {
				what, method, url, token, key, body string
				code                                int
				want                                []string
			}{
				{"create without a token", "POST", base, "", "", `{}`, 401, nil},
				{"create as customer", "POST", base, ana, "", `{"sku":"Y","name":"Y","price_cents":1}`, 403, nil},
				{"create as service", "POST", base, service, "", `{"sku":"Y","name":"Y","price_cents":1}`, 403, nil},
				{"a taken SKU", "POST", base, admin, "", `{"sku":"X-1","name":"Y","price_cents":1}`, 409, []string{"taken", "sku"}},
				{"a bad SKU", "POST", base, admin, "", `{"sku":"a b","name":"Y","price_cents":1}`, 422,
					[]string{"validation", "sku"}},
				{"a blank name", "POST", base, admin, "", `{"sku":"Y","name":" ","price_cents":1}`, 422,
					[]string{"validation", "name"}},
				{"a negative price", "POST", base, admin, "", `{"sku":"Y","name":"Y","price_cents":-1}`, 422,
					[]string{"validation", "price_cents"}},
				{"a price in halves", "POST", base, admin, "", `{"sku":"Y","name":"Y","price_cents":1.5}`, 422,
					[]string{"validation", "price_cents"}},
				{"a negative stock", "POST", base, admin, "", `{"sku":"Y","name":"Y","price_cents":1,"stock":-1}`, 422,
					[]string{"validation", "stock"}},
				{"an id of one's own", "POST", base, admin, "", `{"id":"y","sku":"Y","name":"Y","price_cents":1}`, 422,
					[]string{"validation", "id"}},
				{"get", "GET", one, "", "", "", 200, nil},
				{"get nothing", "GET", base + "/no", "", "", "", 404, []string{"not-found"}},
				{"change as customer", "PUT", one, ana, "", `{"price_cents":1}`, 403, nil},
				{"change nothing", "PUT", base + "/no", admin, "", `{"price_cents":1}`, 404, nil},
				{"change with an old version", "PUT", one, admin, "", `{"version":7,"price_cents":1}`, 409, []string{"conflict"}},
				{"change to a taken SKU", "PUT", one, admin, "", `{"sku":"LAMP-01"}`, 409, []string{"taken", "sku"}},
				{"change to a bad name", "PUT", one, admin, "", `{"name":""}`, 422, []string{"validation", "name"}},
				{"delete as customer", "DELETE", one, ana, "", "", 403, nil},
				{"delete nothing", "DELETE", base + "/no", admin, "", "", 404, nil},
				{"list too many", "GET", base + "?limit=1000", "", "", "", 422, []string{"validation", "query.limit"}},
				{"list in no order", "GET", base + "?sort=sku", "", "", "", 422, []string{"validation", "query.sort"}},
				{"list from a price below 0", "GET", base + "?min_price=-1", "", "", "", 422,
					[]string{"validation", "query.min_price"}},
				{"list by a forgery", "GET", base + "?after=x", "", "", "", 400, []string{"query"}},
				{"check without a token", "POST", base + "/check", "", "", check(""), 401, nil},
				{"check nothing", "POST", base + "/check", ana, "", check(""), 422, []string{"validation", "items"}},
				{"check the unknown", "POST", base + "/check", ana, "",
					check(`{"product_id":"prod-mug","quantity":1},{"product_id":"no","quantity":1}`), 422,
					[]string{"validation", "items[1].product_id"}},
				{"check twice", "POST", base + "/check", ana, "",
					check(`{"product_id":"prod-mug","quantity":1},{"product_id":"prod-mug","quantity":1}`), 422,
					[]string{"validation", "items[1].product_id"}},
				{"check none", "POST", base + "/check", ana, "", check(`{"product_id":"prod-mug","quantity":0}`), 422,
					[]string{"validation", "items[0].quantity"}},
				{"check with a price", "POST", base + "/check", ana, "",
					check(`{"product_id":"prod-mug","quantity":1,"price_cents":1}`), 422,
					[]string{"validation", "items[0].price_cents"}},
				{"reserve as customer", "POST", base + "/reserve", ana, "s1/r/do", item("prod-mug", 1), 403, nil},
				{"reserve without a key", "POST", base + "/reserve", service, "", item("prod-mug", 1), 422,
					[]string{"validation", "header.Idempotency-Key"}},
				{"reserve too much", "POST", base + "/reserve", service, "s1/r/do", item("prod-rug", 16), 409,
					[]string{"out-of-stock", "items[0].quantity"}},
				{"reserve", "POST", base + "/reserve", service, "s1/r/do", item("prod-rug", 15), 200, nil},
				{"reserve again", "POST", base + "/reserve", service, "s1/r/do", item("prod-rug", 15), 200, nil},
			} {
				shoptest.Call{Method: c.method, URL: c.url, Token: c.token, Key: c.key, Body: c.body}.Do(t).Want(t, c.what, c.code,
					c.want...)
			}

			a = shoptest.Call{Method: "PUT", URL: one, Token: admin, Body: `{"version":1,"price_cents":2500}`}.Do(t)
			if a.Code != 200 || a.Body["price_cents"] != 2500.0 || a.Body["name"] != "Xylophone" || a.Body["version"] != 2.0 {
				t.Errorf("change: %d %s", a.Code, a.Raw)
			}
			tell("products.updated", id, map[string]any{"price_cents": 2500.0}) // nothing of what was refused

			offered := `{"product_id":"` + id + `","quantity":2},{"product_id":"prod-rug","quantity":1}`
			a = shoptest.Call{Method: "POST", URL: base + "/check", Token: ana, Body: check(offered)}.Do(t)
			if a.Code != 200 || a.Body["available"] != false || a.Body["total_cents"] != 2*2500.0+32000 ||
				!strings.Contains(a.Raw, `{"product_id":"`+id+
					`","name":"Xylophone","price_cents":2500,"quantity":2,"available":true}`) ||
				!strings.Contains(a.Raw,
					`"product_id":"prod-rug","name":"Wool rug","price_cents":32000,"quantity":1,"available":false`) {
				t.Errorf("check: %d %s", a.Code, a.Raw)
			}
			shoptest.Call{Method: "PUT", URL: one, Token: admin, Body: `{"active":false}`}.Do(t).Want(t, "take off sale", 200)
			shoptest.Call{Method: "POST", URL: base + "/check", Token: ana, Body: check(offered)}.Do(t).Want(t,
				"check what is off sale", 422, "validation", "items[0].product_id")
			tell("products.updated", id, map[string]any{"active": false})
			shoptest.Call{Method: "DELETE", URL: one, Token: admin}.Do(t).Want(t, "delete", 204)
			tell("products.deleted", id, nil)
			shoptest.Call{Method: "GET", URL: one}.Do(t).Want(t, "get what is gone", 404)
			if topic, data := next(reported, 50*time.Millisecond); topic != "" {
				t.Errorf("reported %s %v", topic, data)
			}
		})
	}
}

// What is no text is the client's mistake on every database, wherever it stands.
func TestListNeedsNoText(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{"sqlite": shoptest.SQLite, "postgresql": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := shoptest.New(t)
			s, _ := start(t, shop, dsn(t))
			base, admin := s.URL()+"/api/v1/products", shop.User(t, "u-admin", "admin")
			for _, bad := range []string{"%00", "%ff", "a%00b", "%ed%a0%80"} {
				shoptest.Call{Method: "GET", URL: base + "/" + bad}.Do(t).Want(t, "an id "+bad, 400, "bad-request")
				shoptest.Call{Method: "GET", URL: base + "?name=" + bad}.Do(t).Want(t, "a name "+bad, 400, "bad-request")
				shoptest.Call{Method: "DELETE", URL: base + "/" + bad, Token: admin}.Do(t).Want(t, "delete "+bad, 400,
					"bad-request")
			}
			shoptest.Call{Method: "POST", URL: base + "/check", Token: admin,
				Body: `{"items":[{"product_id":"a\u0000b","quantity":1}]}`}.Do(t).
				Want(t, "check", 422, "validation", "items[0].product_id")
			a := shoptest.Call{Method: "POST", URL: base, Token: admin,
				Body: `{"sku":"N-1","name":"a\u0000b","price_cents":1}`}.Do(t)
			if a.Code != 201 && a.Code != 422 {
				t.Errorf("a name with NUL: %d %s", a.Code, a.Raw)
			}
			a = shoptest.Call{Method: "PUT", URL: base + "/prod-mug", Token: admin, Body: `{"description":"a\u0000b"}`}.Do(t)
			if a.Code != 200 && a.Code != 422 {
				t.Errorf("a description with NUL: %d %s", a.Code, a.Raw)
			}
		})
	}
}

var listQueries = map[string]string{
	"":                                 "chair kettle lamp mug notebook rug",
	"sort=price":                       "mug notebook lamp kettle chair rug",
	"sort=-price&limit=2":              "rug chair",
	"sort=name":                        "lamp kettle notebook chair mug rug",
	"min_price=1490&max_price=6450":    "kettle lamp notebook",
	"name=Desk":                        "lamp",
	"name=K&sort=price&min_price=6451": "",
	"max_price=0":                      "",
}

func TestListFiltersSortsAndPages(t *testing.T) {
	s, _ := start(t, shoptest.New(t), shoptest.SQLite(t))
	list := func(query string) (ids []string, next string) {
		a := shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/products?" + query}.Do(t)
		a.Want(t, query, 200)
		var page platform.List[struct {
			ID string `json:"id"`
		}]
		if err := json.Unmarshal([]byte(a.Raw), &page); err != nil {
			t.Fatal(err)
		}
		for _, it := range page.Items {
			ids = append(ids, strings.TrimPrefix(it.ID, "prod-"))
		}
		return ids, page.Next
	}
	for query, want := range listQueries {
		if ids, _ := list(query); strings.Join(ids, " ") != want {
			t.Errorf("?%s: %v, want %s", query, ids, want)
		}
	}
	var all []string
	for after, pages := "", 0; pages < 9; pages++ {
		ids, next := list("sort=-price&limit=2&after=" + after)
		all = append(all, ids...)
		if after = next; after == "" {
			break
		}
	}
	if strings.Join(all, " ") != "rug chair kettle lamp notebook mug" {
		t.Errorf("page by page: %v", all)
	}
}

// A second process over the same database, and one after the catalogue was changed, make nothing again.
func TestSeedOnce(t *testing.T) {
	shop, dsn := shoptest.New(t), testenv.Postgres(t)
	s, _ := start(t, shop, dsn)
	shoptest.Call{Method: "DELETE", URL: s.URL() + "/api/v1/products/prod-rug", Token: shop.User(t, "u-admin",
		"admin")}.Do(t).Want(t, "delete", 204)
	cfg := shop.Config("products", dsn)
	cfg.Peers.Inventory = "http://127.0.0.1:1"
	again, err := products.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	again.Abandon(t.Context())
	shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/products/prod-rug"}.Do(t).Want(t, "a product that was deleted",
		404)
}

// Several processes that start over an empty database make one catalogue.
func TestSeedTogether(t *testing.T) {
	for name, dsn := range map[string]string{"sqlite": shoptest.SQLite(t), "postgresql": testenv.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			shop := shoptest.New(t)
			cfg := shop.Config("products", dsn)
			cfg.Peers.Inventory = "http://127.0.0.1:1"
			failed := make(chan error)
			for range 4 {
				go func() {
					s, err := products.New(context.Background(), cfg)
					if err == nil {
						s.Abandon(context.Background())
					}
					failed <- err
				}()
			}
			for range 4 {
				if err := <-failed; err != nil {
					t.Error(err)
				}
			}
			db, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			var made, reported int
			err = db.Querier(t.Context()).QueryRow(t.Context(),
				"SELECT (SELECT count(*) FROM products), (SELECT count(*) FROM sillar_outbox)").Scan(&made, &reported)
			if err != nil || made != len(products.Catalogue) || reported != made {
				t.Errorf("%d products, %d reported, %v", made, reported, err)
			}
		})
	}
}

func TestInventoryDoesNotAnswer(t *testing.T) {
	shop := shoptest.New(t)
	cfg := shop.Config("products", shoptest.SQLite(t))
	cfg.Peers.Inventory = "http://127.0.0.1:1"
	s, err := products.New(t.Context(), cfg)
	shoptest.Run(t, s, err)
	body := `{"order_id":"o1","items":[{"product_id":"prod-mug","quantity":1}]}`
	for range 3 {
		shoptest.Call{Method: "POST", URL: s.URL() + "/api/v1/products/check", Token: shop.User(t, "u-ana"),
			Body: `{"items":[{"product_id":"prod-mug","quantity":1}]}`}.Do(t).Want(t, "check", 503, "unavailable")
		shoptest.Call{Method: "POST", URL: s.URL() + "/api/v1/products/reserve", Token: shoptest.Service(t, s), Key: "s/r/do",
			Body: body}.Do(t).Want(t, "reserve", 503, "unavailable")
	}
	shoptest.Call{Method: "GET", URL: s.URL() + "/api/v1/products/prod-mug"}.Do(t).Want(t, "the catalogue is still there",
		200)
}
